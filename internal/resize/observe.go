package resize

import (
	"context"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/kube"
)

// state is the observed state of one claim.
type state struct {
	claim         *corev1.PersistentVolumeClaim
	volume        *corev1.PersistentVolume // the claim's volume; nil if there is none or it is not ours
	info          csi.Info                 // the driver's capabilities
	nodeExpands   bool                     // the driver has the node capability EXPAND_VOLUME
	fromAPIServer bool                     // read from the API server, not from the cache

	canModify bool // the driver has MODIFY_VOLUME

	// What the driver has rejected since this was observed, once that is recorded.
	sizeRejected, classRejected bool

	desiredClass *storagev1.VolumeAttributesClass // the class in the claim's spec; nil if it does not exist
	targetClass  *storagev1.VolumeAttributesClass // the class of the recorded modification; nil if it does not exist
}

// observe reads everything from the given source: the cache or the API server.
func (r *Reconciler) observe(ctx context.Context, from client.Reader, key types.NamespacedName) (state, error) {
	s := state{info: r.driver.Info(), nodeExpands: r.nodeExpands, fromAPIServer: from == r.apiReader}
	s.canModify = r.followsClasses && s.info.Has(csipb.ControllerServiceCapability_RPC_MODIFY_VOLUME)
	if err := kube.GetIfExists(ctx, from, key, &s.claim); err != nil || s.claim == nil {
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

// observeVolume reads the volume that the claim is bound to, if this controller
// may resize it.
func (r *Reconciler) observeVolume(ctx context.Context, from client.Reader, s *state) error {
	claim := s.claim
	if claim.DeletionTimestamp != nil || claim.Status.Phase != corev1.ClaimBound || claim.Spec.VolumeName == "" {
		return nil
	}
	var volume *corev1.PersistentVolume
	err := kube.GetIfExists(ctx, from, types.NamespacedName{Name: claim.Spec.VolumeName}, &volume)
	if err != nil || volume == nil || !r.options.mayResize(claim, volume) {
		return err
	}
	if ref := volume.Spec.ClaimRef; ref != nil && ref.UID == claim.UID && ref.Namespace == claim.Namespace {
		s.volume = volume
	}
	return nil
}

// class reads a VolumeAttributesClass, and returns nil if it does not exist.
func class(ctx context.Context, from client.Reader, name string) (*storagev1.VolumeAttributesClass, error) {
	var c *storagev1.VolumeAttributesClass
	err := kube.GetIfExists(ctx, from, types.NamespacedName{Name: name}, &c)
	return c, err
}

// canExpand reports whether the driver can expand volumes at all.
func (s *state) canExpand() bool {
	return s.nodeExpands || s.info.Has(csipb.ControllerServiceCapability_RPC_EXPAND_VOLUME)
}

// isNodeOnly reports whether only the node expands volumes.
func (s *state) isNodeOnly() bool {
	return s.nodeExpands && !s.info.Has(csipb.ControllerServiceCapability_RPC_EXPAND_VOLUME)
}

// mayBeExpanding reports whether the driver may have been called for the recorded expansion
// without a response being on record. It is called again, whatever it announces now.
func (s *state) mayBeExpanding() bool {
	return s.expansionStatus() == corev1.PersistentVolumeClaimControllerResizeInProgress && !s.hasFailed() && s.allocated() > 0 && !isOnlyOnNode(s.claim)
}

// skipsController reports whether a step leaves the expansion to the node.
func (s *state) skipsController(next step) bool {
	return s.isNodeOnly() && next.action != confirm && (next.action != resume || !s.mayBeExpanding())
}

// volumeSize returns the recorded size of the volume in bytes.
func (s *state) volumeSize() int64 { return sizeOf(s.volume.Spec.Capacity) }

// expansionStatus returns the status of the recorded expansion, and "" if there
// is none.
func (s *state) expansionStatus() corev1.ClaimResourceStatus {
	return s.claim.Status.AllocatedResourceStatuses[corev1.ResourceStorage]
}

// allocated returns the recorded target in bytes, and 0 if there is none. It
// stays when the expansion has finished.
func (s *state) allocated() int64 { return sizeOf(s.claim.Status.AllocatedResources) }

// hasFailed reports whether the last call of the recorded expansion failed with
// a final error.
func (s *state) hasFailed() bool {
	return condition(s.claim, corev1.PersistentVolumeClaimControllerResizeError) != nil
}

// failedInUse reports whether it failed because the volume was in use.
func (s *state) failedInUse() bool {
	c := condition(s.claim, corev1.PersistentVolumeClaimControllerResizeError)
	return c != nil && c.Reason == codes.FailedPrecondition.String()
}

// isModifying reports whether a modification may be in progress.
func (s *state) isModifying() bool {
	record := s.claim.Status.ModifyVolumeStatus
	return record != nil && record.Status == corev1.PersistentVolumeClaimModifyVolumeInProgress &&
		condition(s.claim, corev1.PersistentVolumeClaimVolumeModifyVolumeError) == nil
}

// condition returns a condition that is true, and nil if there is none.
func condition(claim *corev1.PersistentVolumeClaim, of corev1.PersistentVolumeClaimConditionType) *corev1.PersistentVolumeClaimCondition {
	for i := range claim.Status.Conditions {
		if c := &claim.Status.Conditions[i]; c.Type == of && c.Status == corev1.ConditionTrue {
			return c
		}
	}
	return nil
}

// sizeOf returns a size in bytes, rounded up; the largest possible one for a larger one.
func sizeOf(list corev1.ResourceList) int64 { return kube.BytesAtMost(list[corev1.ResourceStorage]) }
