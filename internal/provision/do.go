package provision

import (
	"context"
	"errors"
	"fmt"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/proto"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/provision/pending"
)

// A cache shows a write of ours within milliseconds, unless the API server is
// in trouble.
const (
	cacheTimeout      = 2 * time.Second
	cachePollInterval = 2 * time.Millisecond
)

// resume goes on with an intent of the cache. What the cache says may be over:
// a volume that is made for an intent which is off the record is on nobody's,
// and one that is made while its PersistentVolume is being given back may
// outlive it. So the API server itself is asked for both.
func (r *Reconciler) resume(ctx context.Context, s state) (time.Duration, error) {
	op, err := r.pending.Read(ctx, s.operation.ClaimUID())
	if apierrors.IsNotFound(err) || err == nil && op.Node != r.options.Node.Name {
		return 0, r.finish(ctx, s.operation) // Another node may have its own of that name by now.
	}
	if err != nil {
		return 0, err
	}
	return r.resumeCurrent(ctx, s, op)
}

// resumeCurrent goes on with an intent that is on record now.
func (r *Reconciler) resumeCurrent(ctx context.Context, s state, op *pending.Operation) (time.Duration, error) {
	if err := r.protection.ProtectIfPossible(ctx, op); err != nil {
		return 0, err
	}
	existing := &corev1.PersistentVolume{}
	err := r.apiReader.Get(ctx, types.NamespacedName{Name: op.Volume.Name}, existing)
	switch {
	case apierrors.IsNotFound(err):
		return r.execute(ctx, s, op)
	case err != nil:
		return 0, fmt.Errorf("reading PersistentVolume %s: %w", op.Volume.Name, err)
	case isBeingDeleted(existing):
		return r.options.RetryStart, nil
	case existing.Spec.ClaimRef != nil && existing.Spec.ClaimRef.UID == op.ClaimUID():
		return 0, r.finish(ctx, op)
	default:
		return r.execute(ctx, s, op) // Another one has the name; that is told when it is published.
	}
}

// execute makes the call of an intent that is on record and acts on the answer.
func (r *Reconciler) execute(ctx context.Context, s state, op *pending.Operation) (time.Duration, error) {
	if op.Handle != "" && !s.isWanted(op) {
		return r.deleteUnwanted(ctx, s, op)
	}
	created, err := r.createVolume(ctx, op)
	if err != nil {
		return r.createFailed(ctx, s, op, err)
	}
	if op.Handle != "" && op.Handle != created.GetVolumeId() {
		return r.deleteUnusable(ctx, s, op, created.GetVolumeId(), fmt.Errorf("driver %s has made two volumes under the name %s, %s and %s",
			r.options.Driver, op.Request.GetName(), op.Handle, created.GetVolumeId()))
	}
	volume, err := r.completeVolume(op, created)
	if err != nil {
		return r.deleteUnusable(ctx, s, op, created.GetVolumeId(), err)
	}
	if err := r.createPersistentVolume(ctx, op, volume, created); err != nil {
		return r.persistentVolumeFailed(ctx, s, op, created.GetVolumeId(), err)
	}
	if s.isWanted(op) {
		r.events.Normal(s.claim, kube.ReasonProvisioningSucceeded, "Successfully provisioned volume "+op.Volume.Name)
	}
	r.options.Metrics.recordSuccess(op, s.started)
	r.waitForCache(ctx, op.ClaimUID())
	return 0, r.finish(ctx, op)
}

// isWanted tells whether the claim of an intent is still there and waits for a volume.
func (s *state) isWanted(op *pending.Operation) bool {
	return s.claim != nil && s.claim.UID == op.ClaimUID() && s.claim.DeletionTimestamp == nil
}

// waitForCache returns when the cache shows the volume that was published, or
// after a while. Whatever wakes the claim up in between would find neither a
// volume nor, soon, an intent, and ask the driver once more: no harm, but a
// call for nothing.
func (r *Reconciler) waitForCache(ctx context.Context, claim types.UID) {
	ctx, cancel := context.WithTimeout(ctx, cacheTimeout)
	defer cancel()
	tick := time.NewTicker(cachePollInterval)
	defer tick.Stop()
	for {
		if volume, err := r.volumeForClaim(ctx, claim); volume != nil || err != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// createVolume asks the driver for the volume of an intent.
func (r *Reconciler) createVolume(ctx context.Context, op *pending.Operation) (*csipb.Volume, error) {
	if err := r.readSecret(ctx, op); err != nil {
		return nil, err
	}
	request, ok := proto.Clone(op.Request).(*csipb.CreateVolumeRequest)
	if !ok {
		return nil, errors.New("copying the request: it changed its type")
	}
	request.Secrets = op.SecretValues
	return r.driver.CreateVolume(ctx, request)
}

// completeVolume is the PersistentVolume of an intent as it is published.
func (r *Reconciler) completeVolume(op *pending.Operation, created *csipb.Volume) (*corev1.PersistentVolume, error) {
	volume := complete(op, created)
	volume.Spec.NodeAffinity = r.options.Node.Affinity(volume.Spec.NodeAffinity)
	if !r.options.Topology {
		volume.Spec.NodeAffinity = nil
	}
	return r.options.Plugin.ToInTree(volume.Annotations[kube.AnnProvisionedBy], volume)
}

// createPersistentVolume makes the PersistentVolume of an intent. One that is there already
// is a success if it is for the same claim and the same volume.
func (r *Reconciler) createPersistentVolume(ctx context.Context, op *pending.Operation, volume *corev1.PersistentVolume, created *csipb.Volume) error {
	err := r.client.Create(ctx, volume)
	if err == nil {
		return nil
	}
	if !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("creating PersistentVolume %s: %w", volume.Name, err)
	}
	existing := &corev1.PersistentVolume{}
	if err := r.apiReader.Get(ctx, client.ObjectKeyFromObject(volume), existing); err != nil {
		return fmt.Errorf("reading PersistentVolume %s, which exists already: %w", volume.Name, err)
	}
	existing, err = r.options.Plugin.ToCSI(ctx, existing)
	if err != nil {
		return err
	}
	ref, csiSource := existing.Spec.ClaimRef, existing.Spec.CSI
	if ref == nil || ref.UID != op.ClaimUID() || csiSource == nil || csiSource.VolumeHandle != created.GetVolumeId() {
		return &nameTakenError{volume.Name}
	}
	if isBeingDeleted(existing) {
		return fmt.Errorf("creating PersistentVolume %s: the one that is there is being given back, perhaps with what the driver has just made", volume.Name)
	}
	return nil
}

// isBeingDeleted tells whether a PersistentVolume, and the driver's volume with it, is
// on its way out.
func isBeingDeleted(volume *corev1.PersistentVolume) bool {
	return volume.DeletionTimestamp != nil ||
		volume.Status.Phase == corev1.VolumeReleased && volume.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete
}

// canReschedule tells whether the claim of an intent could go to another node.
func (s *state) canReschedule(op *pending.Operation) bool {
	return s.claim != nil && s.claim.UID == op.ClaimUID() && kube.SelectedNode(s.claim) != "" &&
		op.Request.GetAccessibilityRequirements() != nil
}

// unselectNode asks the scheduler to select again, if the claim still has the
// node with which it was seen. It is read anew because it is written as a whole:
// the right to patch claims is not among those that the program is given.
func (r *Reconciler) unselectNode(ctx context.Context, seen *corev1.PersistentVolumeClaim) error {
	claim := &corev1.PersistentVolumeClaim{}
	there, err := r.getUncached(ctx, client.ObjectKeyFromObject(seen), claim)
	same := there && claim.UID == seen.UID && claim.Spec.VolumeName == "" && kube.SelectedNode(claim) == kube.SelectedNode(seen)
	if err != nil || !same {
		return err
	}
	delete(claim.Annotations, kube.AnnSelectedNode)
	delete(claim.Annotations, kube.AnnAlphaSelectedNode)
	if err := r.client.Update(ctx, claim); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("asking the scheduler for another node: %w", err)
	}
	return nil
}
