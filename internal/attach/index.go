package attach

import (
	"context"
	"fmt"

	storagev1 "k8s.io/api/storage/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Indexes of the driver's VolumeAttachments in the cache.
const (
	attachmentsByVolume = "attach.volume"
	attachmentsByNode   = "attach.node"
	attachmentsOfDriver = "attach.driver"
	attachmentsWaiting  = "attach.waiting" // by what is to be done and is not
)

// Keys of attachmentsWaiting, and what metrics call them.
const (
	toAttach = "attach"
	toDetach = "detach"
)

func (r *Reconciler) index(ctx context.Context, m ctrl.Manager) error {
	for field, key := range map[string]func(*storagev1.VolumeAttachment) string{
		attachmentsByVolume: volumeName,
		attachmentsByNode:   func(a *storagev1.VolumeAttachment) string { return a.Spec.NodeName },
		attachmentsOfDriver: func(a *storagev1.VolumeAttachment) string { return a.Spec.Attacher },
		attachmentsWaiting:  r.options.waitsTo,
	} {
		keys := func(o client.Object) []string {
			a, ok := o.(*storagev1.VolumeAttachment)
			if !ok || !r.ours(a) || key(a) == "" {
				return nil
			}
			return []string{key(a)}
		}
		if err := m.GetFieldIndexer().IndexField(ctx, &storagev1.VolumeAttachment{}, field, keys); err != nil {
			return fmt.Errorf("indexing VolumeAttachments by %s: %w", field, err)
		}
	}
	return nil
}

// waitsTo is what is to be done with a VolumeAttachment and is not; empty for most
// of them.
func (o *Options) waitsTo(a *storagev1.VolumeAttachment) string {
	s := seen{attachment: a}
	switch {
	case !s.deleting() && !a.Status.Attached:
		return toAttach
	case s.deleting() && s.held(o):
		return toDetach
	default:
		return ""
	}
}

// attachments are the driver's VolumeAttachments of the cache with a key. They
// are the cache's own and must not be changed.
func (r *Reconciler) attachments(ctx context.Context, index, key string) ([]storagev1.VolumeAttachment, error) {
	list := &storagev1.VolumeAttachmentList{}
	if err := r.client.List(ctx, list, client.MatchingFields{index: key}, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing VolumeAttachments by %s %s: %w", index, key, err)
	}
	return list.Items, nil
}

// all are the driver's VolumeAttachments of the cache.
func (r *Reconciler) all(ctx context.Context) ([]storagev1.VolumeAttachment, error) {
	return r.attachments(ctx, attachmentsOfDriver, r.options.Driver)
}
