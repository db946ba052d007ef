package retention

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/kube"
)

// expiredTotal counts deletions by the limit that was exceeded.
var expiredTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
	Name: "checkpoint_operator_checkpoint_expired_total", Help: "Ready Checkpoints that were deleted because of their policy's maxCount or maxAge.",
}, []string{"limit"})

// Setup adds the controller to a manager.
func Setup(ctx context.Context, m ctrl.Manager, events *kube.Events, o *Options) error {
	r := &Reconciler{client: m.GetClient(), apiReader: m.GetAPIReader(), events: events, options: o, wallClock: time.Now}
	if err := m.GetFieldIndexer().IndexField(ctx, &v1alpha1.Checkpoint{}, policyField, policyOf); err != nil {
		return fmt.Errorf("indexing Checkpoints by their policy: %w", err)
	}
	metrics.Registry.Unregister(expiredTotal) // by an earlier manager of this process
	if err := metrics.Registry.Register(expiredTotal); err != nil {
		return fmt.Errorf("registering metrics: %w", err)
	}
	for _, l := range []limit{maxCount, maxAge} {
		expiredTotal.WithLabelValues(string(l)) // A counter that starts at zero can be used in an alert.
	}
	return ctrl.NewControllerManagedBy(m).
		Named("retention").
		For(&v1alpha1.CheckpointPolicy{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&v1alpha1.Checkpoint{}, handler.EnqueueRequestsFromMapFunc(requestFor), builder.WithPredicates(matters(), kube.SkipInitialList())).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: o.Workers,
			RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](o.RetryStart, o.RetryMax),
		}).
		Complete(kube.DrainOnStop(r))
}

// policyOf returns the name of the policy of a Checkpoint.
func policyOf(o client.Object) []string {
	if c, ok := o.(*v1alpha1.Checkpoint); ok && c.Spec.PolicyRef != "" {
		return []string{c.Spec.PolicyRef}
	}
	return nil
}

func requestFor(_ context.Context, o client.Object) []reconcile.Request {
	var all []reconcile.Request
	for _, name := range policyOf(o) {
		all = append(all, reconcile.Request{NamespacedName: client.ObjectKey{Name: name}})
	}
	return all
}

// matters passes the changes of Checkpoints that retention depends on. Most changes are
// steps of making one, before it is ready.
func matters() predicate.Funcs {
	return predicate.Funcs{
		CreateFunc: func(e event.CreateEvent) bool { return factsOf(e.Object) != facts{} },
		UpdateFunc: func(e event.UpdateEvent) bool { return factsOf(e.ObjectOld) != factsOf(e.ObjectNew) },
		DeleteFunc: func(e event.DeleteEvent) bool { return factsOf(e.Object) != facts{} },
	}
}

// facts are what retention depends on, of a Checkpoint that is ready or being deleted.
type facts struct {
	policy          string
	counts, deleted bool
	stuck           string // why its data cannot be deleted
}

func factsOf(o client.Object) facts {
	c, ok := o.(*v1alpha1.Checkpoint)
	if !ok || !counts(c) && !isDeleting(c) {
		return facts{}
	}
	f := facts{policy: c.Spec.PolicyRef, counts: counts(c), deleted: isDeleting(c)}
	if f.deleted && isStuck(c) {
		f.stuck = meta.FindStatusCondition(c.Status.Conditions, v1alpha1.ConditionReady).Message
	}
	return f
}
