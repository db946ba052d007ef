package resize

import (
	"context"
	"fmt"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/csi"
)

// state is all that is known about one claim at one moment.
type state struct {
	claim         *corev1.PersistentVolumeClaim
	volume        *corev1.PersistentVolume // the claim's; nil if there is none, or it is not ours
	info          csi.Info                 // what the driver can
	nodeExpands   bool                     // the driver can expand volumes at their nodes
	fromAPIServer bool                     // seen at the API server itself

	canModify bool // the driver can modify volumes

	// What the driver has refused since this was observed, and on record.
	sizeRejected, classRejected bool

	desiredClass *storagev1.VolumeAttributesClass // of the claim's spec; nil if it does not exist
	targetClass  *storagev1.VolumeAttributesClass // that a modification on record leads to; nil if it does not exist
}

// observe reads everything from the cache, or past it.
func (r *Reconciler) observe(ctx context.Context, from client.Reader, key types.NamespacedName) (state, error) {
	s := state{info: r.driver.Info(), nodeExpands: r.nodeExpands, fromAPIServer: from == r.apiReader, claim: &corev1.PersistentVolumeClaim{}}
	s.canModify = r.followsClasses && s.info.Has(csipb.ControllerServiceCapability_RPC_MODIFY_VOLUME)
	if found, err := get(ctx, from, key, s.claim); err != nil || !found {
		return state{}, err
	}
	if err := r.observeVolume(ctx, from, &s); err != nil || s.volume == nil || !s.canModify {
		return s, err
	}
	var err error
	if s.desiredClass, err = class(ctx, from, ptr.Deref(s.claim.Spec.VolumeAttributesClassName, "")); err != nil {
		return s, err
	}
	if record := s.claim.Status.ModifyVolumeStatus; record != nil {
		s.targetClass, err = class(ctx, from, record.TargetVolumeAttributesClassName)
	}
	return s, err
}

// observeVolume finds the volume that the claim is bound to, if it is ours to
// work on.
func (r *Reconciler) observeVolume(ctx context.Context, from client.Reader, s *state) error {
	claim := s.claim
	if claim.DeletionTimestamp != nil || claim.Status.Phase != corev1.ClaimBound || claim.Spec.VolumeName == "" {
		return nil
	}
	volume := &corev1.PersistentVolume{}
	found, err := get(ctx, from, types.NamespacedName{Name: claim.Spec.VolumeName}, volume)
	if err != nil || !found || !r.options.mayResize(claim, volume) {
		return err
	}
	if ref := volume.Spec.ClaimRef; ref != nil && ref.UID == claim.UID && ref.Namespace == claim.Namespace {
		s.volume = volume
	}
	return nil
}

// class reads an attributes class, nil if there is none of that name.
func class(ctx context.Context, from client.Reader, name string) (*storagev1.VolumeAttributesClass, error) {
	if name == "" {
		return nil, nil
	}
	c := &storagev1.VolumeAttributesClass{}
	if found, err := get(ctx, from, types.NamespacedName{Name: name}, c); err != nil || !found {
		return nil, err
	}
	return c, nil
}

func get(ctx context.Context, from client.Reader, key types.NamespacedName, into client.Object) (found bool, err error) {
	err = from.Get(ctx, key, into)
	if client.IgnoreNotFound(err) != nil {
		return false, fmt.Errorf("reading %T %s: %w", into, key, err)
	}
	return err == nil, nil
}

// canExpand tells whether the driver can make volumes larger at all.
func (s *state) canExpand() bool {
	return s.nodeExpands || s.info.Has(csipb.ControllerServiceCapability_RPC_EXPAND_VOLUME)
}

// isNodeOnly tells whether only the node has something to do.
func (s *state) isNodeOnly() bool {
	return s.nodeExpands && !s.info.Has(csipb.ControllerServiceCapability_RPC_EXPAND_VOLUME)
}

// volumeSize is how large the volume is, as far as is known, in bytes.
func (s *state) volumeSize() int64 { return sizeOf(s.volume.Spec.Capacity) }

// expansionStatus is how far the expansion on record is, "" if none is.
func (s *state) expansionStatus() corev1.ClaimResourceStatus {
	return s.claim.Status.AllocatedResourceStatuses[corev1.ResourceStorage]
}

// allocated is the target on record in bytes, 0 for none. It stays there when
// the expansion is done.
func (s *state) allocated() int64 { return sizeOf(s.claim.Status.AllocatedResources) }

// hasFailed tells whether the last call for the expansion on record has surely
// failed.
func (s *state) hasFailed() bool {
	return condition(s.claim, corev1.PersistentVolumeClaimControllerResizeError) != nil
}

// failedInUse tells whether that was because the volume was in use.
func (s *state) failedInUse() bool {
	c := condition(s.claim, corev1.PersistentVolumeClaimControllerResizeError)
	return c != nil && c.Reason == codes.FailedPrecondition.String()
}

// isModifying tells whether a modification may be under way.
func (s *state) isModifying() bool {
	record := s.claim.Status.ModifyVolumeStatus
	return record != nil && record.Status == corev1.PersistentVolumeClaimModifyVolumeInProgress &&
		condition(s.claim, corev1.PersistentVolumeClaimVolumeModifyVolumeError) == nil
}

// condition is one that holds, nil for none.
func condition(claim *corev1.PersistentVolumeClaim, of corev1.PersistentVolumeClaimConditionType) *corev1.PersistentVolumeClaimCondition {
	for i := range claim.Status.Conditions {
		if c := &claim.Status.Conditions[i]; c.Type == of && c.Status == corev1.ConditionTrue {
			return c
		}
	}
	return nil
}

// sizeOf is a size in bytes; a fraction of a byte counts as one.
func sizeOf(list corev1.ResourceList) int64 {
	size := list[corev1.ResourceStorage]
	return size.Value()
}
