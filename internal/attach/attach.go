package attach

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// attach publishes a volume. It first writes the record, then calls the driver,
// then writes the status.
func (r *Reconciler) attach(ctx context.Context, s state) error {
	request, err := publishRequest(s, r.driver.Info(), r.options)
	if err != nil {
		return err
	}
	if request.Secrets, err = kube.SecretData(ctx, r.apiReader, s.desired().secret); err != nil {
		return err
	}
	if err := r.protectVolume(ctx, s); err != nil {
		return err
	}
	if err := r.writeRecord(ctx, s); err != nil {
		return err
	}
	published, err := r.driver.ControllerPublishVolume(ctx, request)
	if status.Code(err) == codes.Unimplemented && !s.canPublish {
		err = nil // The capability is gone too: the driver no longer needs to be called to attach a volume.
	}
	if err != nil {
		return err
	}
	if err := r.setAttached(ctx, s.attachment, published); err != nil {
		if undone := r.undoAttach(ctx, s); undone != nil {
			return errors.Join(undone, err)
		}
		return err
	}
	r.resyncs.remove(s.attachment.Name)
	return r.ensureRecorded(ctx, s)
}

// protectVolume adds our finalizer to the PersistentVolume. The same volume may
// be attached to another node at the same time, and then one of the two writes
// meets a conflict.
func (r *Reconciler) protectVolume(ctx context.Context, s state) error {
	if s.volume == nil {
		return nil
	}
	volume := s.volume.DeepCopy()
	err := kube.AddFinalizer(ctx, r.client, volume, r.options.finalizer())
	if kube.IsStale(err) {
		volume = nil
		getErr := kube.GetIfExists(ctx, r.apiReader, client.ObjectKeyFromObject(s.volume), &volume)
		switch {
		case getErr != nil:
			return getErr
		case volume == nil || volume.UID != s.volume.UID || volume.DeletionTimestamp != nil:
			return kube.Conflict("PersistentVolume %s has changed", s.volume.Name)
		}
		err = kube.AddFinalizer(ctx, r.client, volume, r.options.finalizer())
	}
	return kube.WrapWriteError(err, "adding the finalizer to PersistentVolume "+s.volume.Name)
}

// ensureRecorded writes the record again if somebody has removed our finalizer
// by hand in the meantime. The response to the status write shows whether that
// happened.
func (r *Reconciler) ensureRecorded(ctx context.Context, s state) error {
	switch {
	case s.hasFinalizer(r.options):
		return nil
	case s.isDeleting(): // No finalizer can be added to an object that is being deleted.
		return r.unpublish(ctx, s, s.desired())
	default:
		return r.writeRecord(ctx, s)
	}
}

// writeRecord records what is about to be published, unless the record is
// complete already.
func (r *Reconciler) writeRecord(ctx context.Context, s state) error {
	desired := s.desired()
	hasFinalizer := s.hasFinalizer(r.options)
	if hasFinalizer && recordOf(s.attachment).covers(desired) {
		return nil
	}
	finalizers := s.attachment.Finalizers
	if !hasFinalizer {
		finalizers = append(finalizers[:len(finalizers):len(finalizers)], r.options.finalizer())
	}
	err := kube.MergePatch(ctx, r.client, s.attachment, map[string]any{"metadata": map[string]any{
		"resourceVersion": s.attachment.ResourceVersion, // Only if the object has not changed since it was read.
		"finalizers":      finalizers,
		"annotations":     desired.annotations(),
	}})
	return kube.WrapWriteError(err, "recording the attachment")
}

// undoAttach detaches a volume again if its VolumeAttachment is gone because
// somebody has removed its finalizers by hand. Then the status could not be
// written.
func (r *Reconciler) undoAttach(ctx context.Context, s state) error {
	var current *storagev1.VolumeAttachment
	if err := kube.GetIfExists(ctx, r.apiReader, client.ObjectKeyFromObject(s.attachment), &current); err != nil {
		return err
	}
	if current != nil && current.UID == s.attachment.UID {
		return nil
	}
	klog.FromContext(ctx).Info("A VolumeAttachment was removed by force while its volume was being attached; detaching the volume again",
		"volumeAttachment", s.attachment.Name, "volumeHandle", s.desired().handle, "node", s.desired().nodeID)
	return r.unpublish(ctx, s, s.desired())
}
