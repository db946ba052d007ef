package protection

import (
	"context"
	"slices"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	rawsource "sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/provision/pending"
	"github.com/holdfast-io/holdfast/internal/provision/source"
)

// Setup adds the controller to a manager. It checks a source when an operation that
// reads it ends, when a cloned claim is deleted, and in each sweep.
func (c *Controller) Setup(m ctrl.Manager) error {
	if c.SweepInterval > 0 {
		if err := m.Add(&sweeper{controller: c, interval: c.SweepInterval}); err != nil {
			return err
		}
	}
	deleted := predicate.Funcs{
		CreateFunc: func(event.CreateEvent) bool { return false },
		UpdateFunc: func(event.UpdateEvent) bool { return false },
	}
	return builder.TypedControllerManagedBy[source.Source](m).
		Named("source-protection").
		Watches(&coordinationv1.Lease{}, enqueueSources(sourceOfOperation), builder.WithPredicates(deleted)).
		Watches(&corev1.PersistentVolumeClaim{}, enqueueSources(deletedCloneSource)).
		Watches(&corev1.PersistentVolumeClaim{}, enqueueSources(c.sourceOfClone), builder.WithPredicates(gotVolumeOrDeleted())).
		WatchesRawSource(rawsource.TypedChannel(c.queue, enqueueItself())).
		WithOptions(controller.TypedOptions[source.Source]{
			MaxConcurrentReconciles: c.Workers,
			RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[source.Source](c.RetryStart, c.RetryMax),
		}).
		Complete(kube.DrainOnStop(c))
}

// enqueueSources maps objects to the sources to check.
func enqueueSources(of func(client.Object) []source.Source) handler.TypedEventHandler[client.Object, source.Source] {
	return handler.TypedEnqueueRequestsFromMapFunc(func(_ context.Context, o client.Object) []source.Source { return of(o) })
}

// enqueueItself maps an event of the queue to its source.
func enqueueItself() handler.TypedEventHandler[source.Source, source.Source] {
	return handler.TypedEnqueueRequestsFromMapFunc(func(_ context.Context, s source.Source) []source.Source { return []source.Source{s} })
}

// sourceOfOperation maps the Lease of an operation to the source that it reads.
func sourceOfOperation(lease client.Object) []source.Source {
	if s, ok := pending.SourceOf(lease); ok {
		return []source.Source{s}
	}
	return nil
}

// deletedCloneSource maps a claim to itself if it was cloned and is being deleted.
func deletedCloneSource(o client.Object) []source.Source {
	if o.GetDeletionTimestamp() == nil || !slices.Contains(o.GetFinalizers(), kube.CloneSourceFinalizer) {
		return nil
	}
	return []source.Source{{Kind: source.KindClaim, Namespace: o.GetNamespace(), Name: o.GetName()}}
}

// gotVolumeOrDeleted passes the events of a claim that got its volume or is gone.
func gotVolumeOrDeleted() predicate.Funcs {
	return predicate.Funcs{
		CreateFunc: func(event.CreateEvent) bool { return false },
		UpdateFunc: func(e event.UpdateEvent) bool {
			was, ok1 := e.ObjectOld.(*corev1.PersistentVolumeClaim)
			is, ok2 := e.ObjectNew.(*corev1.PersistentVolumeClaim)
			return ok1 && ok2 && was.Spec.VolumeName == "" && is.Spec.VolumeName != ""
		},
	}
}

// sourceOfClone maps a claim to the one that it clones, if that one is being deleted and
// may be kept for the clone.
func (c *Controller) sourceOfClone(o client.Object) []source.Source {
	claim, ok := o.(*corev1.PersistentVolumeClaim)
	if !ok {
		return nil
	}
	from, supported := source.Of(claim)
	if from == nil || !supported || from.Kind != source.KindClaim {
		return nil
	}
	cloned := &corev1.PersistentVolumeClaim{}
	if err := c.client.Get(context.Background(), from.ObjectKey(), cloned); err != nil || len(deletedCloneSource(cloned)) == 0 {
		return nil // It is gone, or it is not being deleted.
	}
	return []source.Source{*from}
}
