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
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/provision/pending"
)

// execute calls the driver for a recorded operation and acts on the response.
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

// createVolume calls CreateVolume with the recorded request and its secrets.
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

// completeVolume returns the PersistentVolume of an operation as it is created, in the
// form of the in-tree plugin if the class is the plugin's.
func (r *Reconciler) completeVolume(op *pending.Operation, created *csipb.Volume) (*corev1.PersistentVolume, error) {
	volume := complete(op, created)
	volume.Spec.NodeAffinity = r.options.Node.Affinity(volume.Spec.NodeAffinity)
	if !r.options.Topology {
		volume.Spec.NodeAffinity = nil
	}
	return r.options.Plugin.ToInTree(volume.Annotations[kube.AnnProvisionedBy], volume)
}

// createPersistentVolume creates the PersistentVolume of an operation. It succeeds too if
// one exists that is for the same claim and the same volume.
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
		return fmt.Errorf("creating PersistentVolume %s: the existing one is being deleted, perhaps with the volume that the driver has just created", volume.Name)
	}
	return nil
}

// nameTakenError is about a PersistentVolume of another claim or volume that has the name
// of ours.
type nameTakenError struct{ name string }

func (n *nameTakenError) Error() string {
	return fmt.Sprintf("creating PersistentVolume %s: another PersistentVolume of that name exists: delete it, or create the claim again", n.name)
}

// isBeingDeleted reports whether a PersistentVolume and its volume at the driver are being
// deleted, or will be.
func isBeingDeleted(volume *corev1.PersistentVolume) bool {
	return volume.DeletionTimestamp != nil ||
		volume.Status.Phase == corev1.VolumeReleased && volume.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete
}

// unselectNode asks the scheduler to select a node again, unless the claim's node has
// changed since it was observed. The claim is read again because it is updated as a
// whole: the permissions of csi-provisioner do not include patching claims.
func (r *Reconciler) unselectNode(ctx context.Context, observed *corev1.PersistentVolumeClaim) error {
	claim := &corev1.PersistentVolumeClaim{}
	found, err := r.getUncached(ctx, client.ObjectKeyFromObject(observed), claim)
	unchanged := found && claim.UID == observed.UID && claim.Spec.VolumeName == "" && kube.SelectedNode(claim) == kube.SelectedNode(observed)
	if err != nil || !unchanged {
		return err
	}
	delete(claim.Annotations, kube.AnnSelectedNode)
	delete(claim.Annotations, kube.AnnAlphaSelectedNode)
	if err := r.client.Update(ctx, claim); kube.IgnoreGone(err) != nil {
		return fmt.Errorf("asking the scheduler for another node: %w", err)
	}
	return nil
}
