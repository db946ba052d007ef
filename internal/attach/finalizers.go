package attach

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// A finalizerReconciler removes our finalizer from PersistentVolumes that are
// being deleted and not attached any more. It was added when they were first
// attached.
type finalizerReconciler struct{ *Reconciler }

// setupFinalizerController adds the controller to a manager. A volume is
// enqueued when it is deleted, and when a VolumeAttachment of it is gone.
func (r *Reconciler) setupFinalizerController(m ctrl.Manager) error {
	f := finalizerReconciler{r}
	gone := predicate.Funcs{
		CreateFunc: func(event.CreateEvent) bool { return false },
		UpdateFunc: func(event.UpdateEvent) bool { return false },
	}
	return ctrl.NewControllerManagedBy(m).
		Named("attach-finalizers").
		For(&corev1.PersistentVolume{}, builder.WithPredicates(predicate.NewPredicateFuncs(f.needsRemoval))).
		Watches(&storagev1.VolumeAttachment{}, handler.EnqueueRequestsFromMapFunc(f.volumeOfDeleted), builder.WithPredicates(gone)).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: r.options.Workers,
			RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](r.options.RetryStart, r.options.RetryMax),
		}).
		Complete(kube.DrainOnStop(f))
}

// needsRemoval reports whether a volume is being deleted and has our finalizer.
func (f finalizerReconciler) needsRemoval(o client.Object) bool {
	return o.GetDeletionTimestamp() != nil && slices.Contains(o.GetFinalizers(), f.options.finalizer())
}

// volumeOfDeleted maps a deleted VolumeAttachment to its PersistentVolume, if
// that needs the finalizer removed. If the volume is deleted later, its own
// event enqueues it.
func (f finalizerReconciler) volumeOfDeleted(ctx context.Context, o client.Object) []reconcile.Request {
	a, ok := o.(*storagev1.VolumeAttachment)
	if !ok || volumeName(a) == "" {
		return nil
	}
	key := client.ObjectKey{Name: volumeName(a)}
	var volume *corev1.PersistentVolume
	if err := kube.GetIfExists(ctx, f.client, key, &volume, client.UnsafeDisableDeepCopy); err == nil && (volume == nil || !f.needsRemoval(volume)) {
		return nil
	}
	return []reconcile.Request{{NamespacedName: key}}
}

// waitEventDelay is how long a deleted volume may stay attached before an event
// says so. Most volumes are detached by then.
const waitEventDelay = 10 * time.Second

// Reconcile removes the finalizer if the volume is not attached, and reports
// why if it cannot.
func (f finalizerReconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	var volume *corev1.PersistentVolume
	err := kube.GetIfExists(ctx, f.client, request.NamespacedName, &volume, client.UnsafeDisableDeepCopy)
	if err != nil || volume == nil || !f.needsRemoval(volume) {
		return reconcile.Result{}, err
	}
	attachments, err := f.attachments(ctx, attachmentsByVolume, volume.Name)
	if err != nil {
		return reconcile.Result{}, err
	}
	if len(attachments) > 0 {
		if left := waitEventDelay - time.Since(volume.DeletionTimestamp.Time); left > 0 {
			return reconcile.Result{RequeueAfter: left}, nil
		}
		f.events.Normal(volume, kube.ReasonWaitingForDetach, waitingMessage(attachments))
		return reconcile.Result{}, nil // The deletion of each of them enqueues the volume.
	}
	return reconcile.Result{}, f.removeVolumeFinalizer(ctx, volume.DeepCopy())
}

// waitingMessage says which VolumeAttachments a volume waits for.
func waitingMessage(attachments []storagev1.VolumeAttachment) string {
	first := &attachments[0]
	message := fmt.Sprintf("The PersistentVolume is being deleted and waits until it is detached: VolumeAttachment %s, node %s", first.Name, first.Spec.NodeName)
	if more := len(attachments) - 1; more > 0 {
		message += fmt.Sprintf(", and %d more", more)
	}
	if first.DeletionTimestamp == nil {
		message += "; it is deleted when no pod on the node uses the volume any more"
	}
	return message
}

// removeVolumeFinalizer removes our finalizer. If the volume has changed, removal
// is tried once more with the current object.
func (f finalizerReconciler) removeVolumeFinalizer(ctx context.Context, volume *corev1.PersistentVolume) error {
	uid := volume.UID
	err := kube.RemoveFinalizer(ctx, f.client, volume, f.options.finalizer())
	if !kube.IsStale(err) {
		return f.reportRemovalFailure(volume, err)
	}
	var current *corev1.PersistentVolume
	err = kube.GetIfExists(ctx, f.apiReader, client.ObjectKeyFromObject(volume), &current)
	if err != nil || current == nil || current.UID != uid || !f.needsRemoval(current) {
		return err
	}
	return f.reportRemovalFailure(current, kube.RemoveFinalizer(ctx, f.client, current.DeepCopy(), f.options.finalizer()))
}

// reportRemovalFailure emits an event if the finalizer could not be removed.
func (f finalizerReconciler) reportRemovalFailure(volume *corev1.PersistentVolume, err error) error {
	if err == nil {
		return nil
	}
	err = fmt.Errorf("removing the finalizer from PersistentVolume %s, which is being deleted and not attached any more: %w", volume.Name, err)
	f.events.Warning(volume, kube.ReasonFailedDetach, kube.Message(err))
	return err
}
