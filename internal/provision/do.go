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
)

// A cache shows a write of ours within milliseconds, unless the API server is
// in trouble.
const (
	cachePatience = 2 * time.Second
	cachePulse    = 2 * time.Millisecond
)

// resume goes on with an intent of the cache. What the cache says may be over:
// a volume that is made for an intent which is off the record is on nobody's,
// and one that is made while its PersistentVolume is being given back may
// outlive it. So the API server itself is asked for both.
func (r *Reconciler) resume(ctx context.Context, s seen) (time.Duration, error) {
	i, err := r.journal.read(ctx, s.intent.claimUID())
	if apierrors.IsNotFound(err) || err == nil && i.node != r.options.Node.Name {
		return 0, r.forget(ctx, s.intent) // Another node may have its own of that name by now.
	}
	if err != nil {
		return 0, err
	}
	return r.resumeRecorded(ctx, s, i)
}

// resumeRecorded goes on with an intent that is on record now.
func (r *Reconciler) resumeRecorded(ctx context.Context, s seen, i *intent) (time.Duration, error) {
	if err := r.guard.keep(ctx, i); err != nil {
		return 0, err
	}
	there := &corev1.PersistentVolume{}
	err := r.live.Get(ctx, types.NamespacedName{Name: i.volume.Name}, there)
	switch {
	case apierrors.IsNotFound(err):
		return r.carry(ctx, s, i)
	case err != nil:
		return 0, fmt.Errorf("reading PersistentVolume %s: %w", i.volume.Name, err)
	case going(there):
		return r.options.RetryStart, nil
	case there.Spec.ClaimRef != nil && there.Spec.ClaimRef.UID == i.claimUID():
		return 0, r.forget(ctx, i)
	default:
		return r.carry(ctx, s, i) // Another one has the name; that is told when it is published.
	}
}

// carry makes the call of an intent that is on record and acts on the answer.
func (r *Reconciler) carry(ctx context.Context, s seen, i *intent) (time.Duration, error) {
	if i.handle != "" && !s.wants(i) {
		return r.giveBack(ctx, s, i)
	}
	made, err := r.create(ctx, i)
	if err != nil {
		return r.failed(ctx, s, i, err)
	}
	if i.handle != "" && i.handle != made.GetVolumeId() {
		return r.unusable(ctx, s, i, made.GetVolumeId(), fmt.Errorf("driver %s has made two volumes under the name %s, %s and %s",
			r.options.Driver, i.request.GetName(), i.handle, made.GetVolumeId()))
	}
	volume, err := r.shape(i, made)
	if err != nil {
		return r.unusable(ctx, s, i, made.GetVolumeId(), err)
	}
	if err := r.publish(ctx, i, volume, made); err != nil {
		return r.unpublished(ctx, s, i, made.GetVolumeId(), err)
	}
	if s.wants(i) {
		r.events.Normal(s.claim, kube.ReasonProvisioningSucceeded, "Successfully provisioned volume "+i.volume.Name)
	}
	r.options.Metrics.success(i, s.began)
	r.awaitCache(ctx, i.claimUID())
	return 0, r.forget(ctx, i)
}

// wants tells whether the claim of an intent is still there and waits for a volume.
func (s *seen) wants(i *intent) bool {
	return s.claim != nil && s.claim.UID == i.claimUID() && s.claim.DeletionTimestamp == nil
}

// awaitCache returns when the cache shows the volume that was published, or
// after a while. Whatever wakes the claim up in between would find neither a
// volume nor, soon, an intent, and ask the driver once more: no harm, but a
// call for nothing.
func (r *Reconciler) awaitCache(ctx context.Context, claim types.UID) {
	ctx, cancel := context.WithTimeout(ctx, cachePatience)
	defer cancel()
	tick := time.NewTicker(cachePulse)
	defer tick.Stop()
	for {
		if volume, err := r.volumeOf(ctx, claim); volume != nil || err != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// create asks the driver for the volume of an intent.
func (r *Reconciler) create(ctx context.Context, i *intent) (*csipb.Volume, error) {
	if err := r.readSecret(ctx, i); err != nil {
		return nil, err
	}
	request, ok := proto.Clone(i.request).(*csipb.CreateVolumeRequest)
	if !ok {
		return nil, errors.New("copying the request: it changed its type")
	}
	request.Secrets = i.values
	return r.driver.CreateVolume(ctx, request)
}

// shape is the PersistentVolume of an intent as it is published.
func (r *Reconciler) shape(i *intent, made *csipb.Volume) (*corev1.PersistentVolume, error) {
	volume := complete(i, made)
	volume.Spec.NodeAffinity = r.options.Node.affinity(volume.Spec.NodeAffinity)
	if !r.options.Topology {
		volume.Spec.NodeAffinity = nil
	}
	return r.options.Plugin.FromCSI(volume.Annotations[kube.AnnProvisionedBy], volume)
}

// publish makes the PersistentVolume of an intent. One that is there already
// is a success if it is for the same claim and the same volume.
func (r *Reconciler) publish(ctx context.Context, i *intent, volume *corev1.PersistentVolume, made *csipb.Volume) error {
	err := r.client.Create(ctx, volume)
	if err == nil {
		return nil
	}
	if !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("creating PersistentVolume %s: %w", volume.Name, err)
	}
	there := &corev1.PersistentVolume{}
	if err := r.live.Get(ctx, client.ObjectKeyFromObject(volume), there); err != nil {
		return fmt.Errorf("reading PersistentVolume %s, which exists already: %w", volume.Name, err)
	}
	there, err = r.options.Plugin.ToCSI(ctx, there)
	if err != nil {
		return err
	}
	ref, source := there.Spec.ClaimRef, there.Spec.CSI
	if ref == nil || ref.UID != i.claimUID() || source == nil || source.VolumeHandle != made.GetVolumeId() {
		return &nameTaken{volume.Name}
	}
	if going(there) {
		return fmt.Errorf("creating PersistentVolume %s: the one that is there is being given back, perhaps with what the driver has just made", volume.Name)
	}
	return nil
}

// going tells whether a PersistentVolume, and the driver's volume with it, is
// on its way out.
func going(volume *corev1.PersistentVolume) bool {
	return volume.DeletionTimestamp != nil ||
		volume.Status.Phase == corev1.VolumeReleased && volume.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete
}

// waitsFor tells whether the claim of an intent could go to another node.
func (s *seen) waitsFor(i *intent) bool {
	return s.claim != nil && s.claim.UID == i.claimUID() && selectedNode(s.claim) != "" &&
		i.request.GetAccessibilityRequirements() != nil
}

// unselectNode asks the scheduler to select again, if the claim still has the
// node with which it was seen. It is read anew because it is written as a whole:
// the right to patch claims is not among those that the program is given.
func (r *Reconciler) unselectNode(ctx context.Context, seen *corev1.PersistentVolumeClaim) error {
	claim := &corev1.PersistentVolumeClaim{}
	there, err := r.getLive(ctx, client.ObjectKeyFromObject(seen), claim)
	same := there && claim.UID == seen.UID && claim.Spec.VolumeName == "" && selectedNode(claim) == selectedNode(seen)
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
