package checkpoint

import (
	"context"
	"time"

	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/kube"
)

// Resources are the resources without which the controller cannot work.
var Resources = kube.Resources{GroupVersion: v1alpha1.GroupVersion, Names: []string{"checkpoints", "checkpointpolicies", "checkpointnodes"}}

// CacheOptions limits the cache to the Checkpoints of the given namespaces; none for all.
func CacheOptions(namespaces []string, into *cache.Options) {
	if len(namespaces) == 0 {
		return
	}
	watched := map[string]cache.Config{}
	for _, namespace := range namespaces {
		watched[namespace] = cache.Config{}
	}
	if into.ByObject == nil {
		into.ByObject = map[client.Object]cache.ByObject{}
	}
	into.ByObject[&v1alpha1.Checkpoint{}] = cache.ByObject{Namespaces: watched}
}

// Setup adds the controller to a manager.
func Setup(_ context.Context, m ctrl.Manager, events *kube.Events, o *Options) error {
	r := &Reconciler{client: m.GetClient(), apiReader: m.GetAPIReader(), events: events, options: o, now: time.Now}
	if err := registerMetrics(m); err != nil {
		return err
	}
	return ctrl.NewControllerManagedBy(m).
		Named("checkpoint").
		For(&v1alpha1.Checkpoint{}).
		Watches(&v1alpha1.CheckpointPolicy{}, handler.EnqueueRequestsFromMapFunc(r.waiting), builder.WithPredicates(predicate.GenerationChangedPredicate{}, kube.SkipInitialList())).
		Watches(&v1alpha1.CheckpointNode{}, handler.EnqueueRequestsFromMapFunc(r.waiting), builder.WithPredicates(kube.SkipInitialList())).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: o.Workers,
			RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](o.RetryStart, o.RetryMax),
		}).
		Complete(kube.DrainOnStop(r))
}

// waiting returns the Checkpoints that are not complete, or are being deleted: what they
// wait for may have come, or gone.
func (r *Reconciler) waiting(ctx context.Context, _ client.Object) []reconcile.Request {
	var all v1alpha1.CheckpointList
	if err := r.client.List(ctx, &all, client.UnsafeDisableDeepCopy); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Could not list Checkpoints; those that wait are retried with backoff only")
		return nil
	}
	var requests []reconcile.Request
	for i := range all.Items {
		if s := (&state{checkpoint: &all.Items[i]}); s.isDeleting() || !s.isComplete() {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(s.checkpoint)})
		}
	}
	return requests
}
