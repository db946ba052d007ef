package reclaim

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/kube"
)

// CacheOptions reduces the VolumeAttachments in the manager's cache to the
// names of their volumes, because the controller only checks whether there are
// any. Those of other drivers lose that name too and are in no index.
func CacheOptions(driver string, into *cache.Options) {
	if into.ByObject == nil {
		into.ByObject = map[client.Object]cache.ByObject{}
	}
	into.ByObject[&storagev1.VolumeAttachment{}] = cache.ByObject{Transform: func(o any) (any, error) {
		attachment, ok := o.(*storagev1.VolumeAttachment)
		if !ok {
			return o, nil
		}
		reduced := storagev1.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{
			Name: attachment.Name, UID: attachment.UID, ResourceVersion: attachment.ResourceVersion,
		}}
		if attachment.Spec.Attacher == driver {
			reduced.Spec.Source.PersistentVolumeName = attachment.Spec.Source.PersistentVolumeName
		}
		*attachment = reduced
		return attachment, nil
	}}
}

// Setup adds the controller to a manager whose cache has CacheOptions.
func Setup(ctx context.Context, m ctrl.Manager, driver *csi.Driver, events *kube.Events, o *Options) error {
	r := &Reconciler{client: m.GetClient(), apiReader: m.GetAPIReader(), driver: driver, events: events, options: o}
	b := ctrl.NewControllerManagedBy(m).
		Named("reclaim").
		For(&corev1.PersistentVolume{}, builder.WithPredicates(predicate.NewPredicateFuncs(r.isRelevant))).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: o.Workers,
			RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](o.RetryStart, o.RetryMax),
		})
	if err := r.watchAttachments(ctx, m, b); err != nil {
		return err
	}
	return b.Complete(kube.DrainOnStop(r))
}

// isRelevant passes volumes that this controller acts on or emits events about.
func (r *Reconciler) isRelevant(o client.Object) bool {
	volume, ok := o.(*corev1.PersistentVolume)
	return ok && (r.options.isSelected(volume) || r.options.decideUnselected(volume) != none)
}

// deletedOnly passes deletions of VolumeAttachments, which a deletion of the
// volume waits for.
func deletedOnly() predicate.Funcs {
	return predicate.Funcs{
		CreateFunc: func(event.CreateEvent) bool { return false },
		UpdateFunc: func(event.UpdateEvent) bool { return false },
	}
}

func requestForVolume(_ context.Context, o client.Object) []reconcile.Request {
	name := volumeName(o)
	if name == "" {
		return nil
	}
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Name: name}}}
}

// volumeName returns the name of a VolumeAttachment's volume, and "" for an
// inline volume.
func volumeName(o client.Object) string {
	attachment, ok := o.(*storagev1.VolumeAttachment)
	if !ok || attachment.Spec.Source.PersistentVolumeName == nil {
		return ""
	}
	return *attachment.Spec.Source.PersistentVolumeName
}
