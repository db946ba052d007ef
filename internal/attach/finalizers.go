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
	k := finalizerReconciler{r}
	gone := predicate.Funcs{
		CreateFunc: func(event.CreateEvent) bool { return false },
		UpdateFunc: func(event.UpdateEvent) bool { return false },
	}
	return ctrl.NewControllerManagedBy(m).
		Named("attach-keep").
		For(&corev1.PersistentVolume{}, builder.WithPredicates(predicate.NewPredicateFuncs(k.needsRemoval))).
		Watches(&storagev1.VolumeAttachment{}, handler.EnqueueRequestsFromMapFunc(k.volumeOfDeleted), builder.WithPredicates(gone)).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: r.options.Workers,
			RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](r.options.RetryStart, r.options.RetryMax),
		}).
		Complete(kube.DrainOnStop(k))
}

// needsRemoval reports whether a volume is being deleted and has our finalizer.
func (k finalizerReconciler) needsRemoval(o client.Object) bool {
	return o.GetDeletionTimestamp() != nil && slices.Contains(o.GetFinalizers(), k.options.finalizer())
}

// volumeOfDeleted maps a deleted VolumeAttachment to its PersistentVolume, if
// that needs the finalizer removed. If the volume is deleted later, its own
// event enqueues it.
func (k finalizerReconciler) volumeOfDeleted(ctx context.Context, o client.Object) []reconcile.Request {
	a, ok := o.(*storagev1.VolumeAttachment)
	if !ok || volumeName(a) == "" {
		return nil
	}
	key := client.ObjectKey{Name: volumeName(a)}
	var volume *corev1.PersistentVolume
	if err := kube.GetIfExists(ctx, k.client, key, &volume, client.UnsafeDisableDeepCopy); err == nil && (volume == nil || !k.needsRemoval(volume)) {
		return nil
	}
	return []reconcile.Request{{NamespacedName: key}}
}

// waitEventDelay is how long a deleted volume may stay attached before an event
// says so. Most volumes are detached by then.
const waitEventDelay = 10 * time.Second

// Reconcile removes the finalizer if the volume is not attached, and reports
// why if it cannot.
func (k finalizerReconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	var volume *corev1.PersistentVolume
	err := kube.GetIfExists(ctx, k.client, request.NamespacedName, &volume, client.UnsafeDisableDeepCopy)
	if err != nil || volume == nil || !k.needsRemoval(volume) {
		return reconcile.Result{}, err
	}
	attachments, err := k.attachments(ctx, attachmentsByVolume, volume.Name)
	if err != nil {
		return reconcile.Result{}, err
	}
	if len(attachments) > 0 {
		if left := waitEventDelay - time.Since(volume.DeletionTimestamp.Time); left > 0 {
			return reconcile.Result{RequeueAfter: left}, nil
		}
		k.events.Normal(volume, kube.ReasonWaitingForDetach, waitingMessage(attachments))
		return reconcile.Result{}, nil // The deletion of each of them enqueues the volume.
	}
	return reconcile.Result{}, k.removeVolumeFinalizer(ctx, volume.DeepCopy())
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

// removeVolumeFinalizer removes our finalizer. An admission policy that denies
// the write causes the same response as a conflict, so removal is tried once
// more with the current object.
func (k finalizerReconciler) removeVolumeFinalizer(ctx context.Context, volume *corev1.PersistentVolume) error {
	uid := volume.UID
	err := kube.RemoveFinalizer(ctx, k.client, volume, k.options.finalizer())
	if !kube.IsConflictResponse(err) {
		return k.reportStuck(volume, err)
	}
	var current *corev1.PersistentVolume
	err = kube.GetIfExists(ctx, k.apiReader, client.ObjectKeyFromObject(volume), &current)
	if err != nil || current == nil || current.UID != uid || !k.needsRemoval(current) {
		return err
	}
	return k.reportStuck(current, kube.RemoveFinalizer(ctx, k.client, current.DeepCopy(), k.options.finalizer()))
}

// reportStuck emits an event if the finalizer could not be removed.
func (k finalizerReconciler) reportStuck(volume *corev1.PersistentVolume, err error) error {
	if err == nil {
		return nil
	}
	err = fmt.Errorf("removing the finalizer from PersistentVolume %s, which is being deleted and not attached any more: %w", volume.Name, err)
	k.events.Warning(volume, kube.ReasonFailedDetach, err.Error())
	return err
}
