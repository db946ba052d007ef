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
	attachmentsByVolume    = "attach.volume"
	attachmentsByNode      = "attach.node"
	attachmentsOfDriver    = "attach.driver"
	attachmentsByOperation = "attach.waiting" // by unfinished operation
)

// Keys of attachmentsByOperation, which are also labels of metrics.
const (
	operationAttach = "attach"
	operationDetach = "detach"
)

func (r *Reconciler) index(ctx context.Context, m ctrl.Manager) error {
	for field, key := range map[string]func(*storagev1.VolumeAttachment) string{
		attachmentsByVolume:    volumeName,
		attachmentsByNode:      func(a *storagev1.VolumeAttachment) string { return a.Spec.NodeName },
		attachmentsOfDriver:    func(a *storagev1.VolumeAttachment) string { return a.Spec.Attacher },
		attachmentsByOperation: r.options.unfinishedOperation,
	} {
		keys := func(o client.Object) []string {
			a, ok := o.(*storagev1.VolumeAttachment)
			if !ok || !r.isOurs(a) || key(a) == "" {
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

// unfinishedOperation returns the operation that a VolumeAttachment is waiting
// for, and "" for most of them.
func (o *Options) unfinishedOperation(a *storagev1.VolumeAttachment) string {
	s := state{attachment: a}
	switch {
	case !s.isDeleting() && !a.Status.Attached:
		return operationAttach
	case s.isDeleting() && s.hasFinalizer(o):
		return operationDetach
	default:
		return ""
	}
}

// attachments returns the driver's VolumeAttachments with a key of an index.
// They belong to the cache and must not be changed.
func (r *Reconciler) attachments(ctx context.Context, index, key string) ([]storagev1.VolumeAttachment, error) {
	list := &storagev1.VolumeAttachmentList{}
	if err := r.client.List(ctx, list, client.MatchingFields{index: key}, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing VolumeAttachments by %s %s: %w", index, key, err)
	}
	return list.Items, nil
}

// allAttachments returns the driver's VolumeAttachments in the cache.
func (r *Reconciler) allAttachments(ctx context.Context) ([]storagev1.VolumeAttachment, error) {
	return r.attachments(ctx, attachmentsOfDriver, r.options.Driver)
}
