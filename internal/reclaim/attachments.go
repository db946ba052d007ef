package reclaim

import (
	"context"
	"fmt"
	"slices"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/kube"
)

// attachmentsByVolume indexes VolumeAttachments by the name of their volume.
const attachmentsByVolume = "reclaim.volume"

// attachmentPollInterval is how often the VolumeAttachments of a volume are read again if they
// are not watched.
const attachmentPollInterval = 15 * time.Second

// attachmentPageSize is how many VolumeAttachments are read at a time if they are not watched.
const attachmentPageSize = 500

// watchAttachments has the controller watch VolumeAttachments, if the driver attaches volumes. A
// driver that does not needs no permission for them.
func (r *Reconciler) watchAttachments(ctx context.Context, m ctrl.Manager, b *builder.Builder) error {
	if !r.canPublish() {
		return nil
	}
	err := m.GetFieldIndexer().IndexField(ctx, &storagev1.VolumeAttachment{}, attachmentsByVolume, func(o client.Object) []string {
		if name := volumeName(o); name != "" {
			return []string{name}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("indexing attachments: %w", err)
	}
	b.Watches(&storagev1.VolumeAttachment{}, handler.EnqueueRequestsFromMapFunc(requestForVolume), builder.WithPredicates(deletedOnly()))
	r.watchesAttachments = true
	return nil
}

// isAttached reports whether a volume has a VolumeAttachment. What the driver announces may
// change while this process runs, and the attachments that exist stay: they count too if the
// driver does not attach volumes any more.
func (r *Reconciler) isAttached(ctx context.Context, volume *corev1.PersistentVolume) (bool, error) {
	if r.watchesAttachments {
		attachments := &storagev1.VolumeAttachmentList{}
		if err := r.client.List(ctx, attachments, client.MatchingFields{attachmentsByVolume: volume.Name}); err != nil {
			return false, fmt.Errorf("reading the volume's attachments: %w", err)
		}
		return len(attachments.Items) > 0, nil
	}
	if !r.canPublish() && !slices.Contains(volume.Finalizers, csi.AttachFinalizer(r.options.Driver)) {
		return false, nil
	}
	attached := false
	err := kube.EachPage(ctx, r.apiReader, attachmentPageSize, func(page *storagev1.VolumeAttachmentList) error {
		attached = attached || slices.ContainsFunc(page.Items, func(a storagev1.VolumeAttachment) bool {
			return a.Spec.Attacher == r.options.Driver && volumeName(&a) == volume.Name
		})
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("reading the volume's attachments: %w", err)
	}
	return attached, nil
}

// canPublish reports whether the driver's volumes are attached now.
func (r *Reconciler) canPublish() bool {
	return r.driver.Info().Has(csipb.ControllerServiceCapability_RPC_PUBLISH_UNPUBLISH_VOLUME)
}
