package attach

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// attach publishes a volume: first the record, then the call, then the status.
func (r *Reconciler) attach(ctx context.Context, s seen) error {
	request, err := publishRequest(s, r.driver.Info(), r.options)
	if err != nil {
		return err
	}
	if request.Secrets, err = kube.SecretData(ctx, r.live, s.wanted().secret); err != nil {
		return err
	}
	if err := r.protect(ctx, s); err != nil {
		return err
	}
	if err := r.write(ctx, s); err != nil {
		return err
	}
	published, err := r.driver.ControllerPublishVolume(ctx, request)
	if status.Code(err) == codes.Unimplemented && !s.publishes {
		err = nil // It says both: there is nothing to do for an attachment any more.
	}
	if err != nil {
		return err
	}
	if err := r.setAttached(ctx, s.attachment, published); err != nil {
		if undone := r.undo(ctx, s); undone != nil {
			return errors.Join(undone, err)
		}
		return err
	}
	r.forced.done(s.attachment.Name)
	return r.keepOnRecord(ctx, s)
}

// protect puts our finalizer on the PersistentVolume. Others attach it elsewhere
// at the same time, and one of them is the first.
func (r *Reconciler) protect(ctx context.Context, s seen) error {
	if s.volume == nil {
		return nil
	}
	volume := s.volume.DeepCopy()
	err := kube.AddFinalizer(ctx, r.client, volume, r.options.finalizer())
	if kube.IsConflictResponse(err) {
		volume = &corev1.PersistentVolume{}
		found, problem := get(ctx, r.live, s.volume.Name, volume)
		switch {
		case problem != nil:
			return problem
		case !found || volume.UID != s.volume.UID || volume.DeletionTimestamp != nil:
			return superseded{fmt.Errorf("PersistentVolume %s has changed", s.volume.Name)}
		}
		err = kube.AddFinalizer(ctx, r.client, volume, r.options.finalizer())
	}
	if err != nil {
		return fmt.Errorf("protecting PersistentVolume %s: %w", s.volume.Name, err)
	}
	return nil
}

// keepOnRecord sees to it that what was attached stays on record, if somebody has
// taken our finalizer off by hand meanwhile. The status that was just written tells.
func (r *Reconciler) keepOnRecord(ctx context.Context, s seen) error {
	switch {
	case s.held(r.options):
		return nil
	case s.deleting(): // It cannot be put on again.
		return r.withdraw(ctx, s, s.wanted())
	default:
		return r.write(ctx, s)
	}
}

// write puts on record what is to be published, if it is not.
func (r *Reconciler) write(ctx context.Context, s seen) error {
	wanted := s.wanted()
	held := s.held(r.options)
	if held && recordOf(s.attachment).complete(wanted) {
		return nil
	}
	finalizers := s.attachment.Finalizers
	if !held {
		finalizers = append(finalizers[:len(finalizers):len(finalizers)], r.options.finalizer())
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"resourceVersion": s.attachment.ResourceVersion, // Only if it is still the one that was seen.
		"finalizers":      finalizers,
		"annotations":     wanted.annotations(),
	}})
	if err != nil {
		return err
	}
	err = r.client.Patch(ctx, s.attachment, client.RawPatch(types.MergePatchType, patch))
	return written(err, "recording what is to be attached")
}

// undo takes away what was published for a VolumeAttachment whose status could
// not be written because it is gone: somebody has removed its finalizers by
// hand.
func (r *Reconciler) undo(ctx context.Context, s seen) error {
	there := &storagev1.VolumeAttachment{}
	found, err := get(ctx, r.live, s.attachment.Name, there)
	if err != nil {
		return err
	}
	if found && there.UID == s.attachment.UID {
		return nil
	}
	klog.FromContext(ctx).Info("A VolumeAttachment was removed by force while its volume was being attached; it is detached again",
		"volumeAttachment", s.attachment.Name, "volumeHandle", s.wanted().handle, "node", s.wanted().node)
	return r.withdraw(ctx, s, s.wanted())
}
