package controller

import (
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
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
	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// NewReconciler makes the engine for a kind of snapshots, with a client that reads from a
// cache and one that does not. What Controller has begun and FindLost are to be
// added to the manager.
func NewReconciler(c client.Client, apiReader client.Reader, kind SnapshotKind, events *kube.Events, o *Options) *Reconciler {
	return &Reconciler{
		rules: newRules(kind, o), client: c, apiReader: apiReader,
		events: events, options: o, durations: snapshot.OperationMetrics, now: time.Now,
	}
}

// NewController begins the controller that works on the snapshots: it wakes them up
// when they change, or their contents. What else they wait for the kind adds.
func (r *Reconciler) NewController(m ctrl.Manager) *builder.Builder {
	served := predicate.NewPredicateFuncs(func(o client.Object) bool { return r.options.IsSelected(o.GetNamespace()) })
	b := ctrl.NewControllerManagedBy(m).
		Named("bind-"+r.Name).
		For(r.kind.EmptySnapshot(), builder.WithPredicates(served, r.snapshotChanges())).
		Watches(r.kind.EmptyContent(), r.Enqueue(r.snapshotsOfContent), builder.WithPredicates(r.contentChanges(), kube.SkipInitialList())).
		WithOptions(r.options.controllerOptions())
	if r.options.Distributed {
		b.Watches(&corev1.Node{}, r.Enqueue(r.deletingContentsOn(r.snapshotRequest)), builder.WithPredicates(isDeleted()))
	}
	return b
}

// snapshotRequest is the snapshot that a content belongs to.
func (r *Reconciler) snapshotRequest(c *Content) reconcile.Request {
	return RequestFor(c.Ref.Namespace, c.Ref.Name)
}

// Build adds the controller that NewController has begun.
func (r *Reconciler) Build(b *builder.Builder) (controller.Controller, error) {
	return b.Build(kube.DrainOnStop(r))
}

// Enqueue wakes the snapshots that an object leads to, of those that are worked on.
func (r *Reconciler) Enqueue(lead handler.MapFunc) handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(r.options.onlySelected(lead))
}

// snapshotsOfContent leads from a content to its snapshot.
func (r *Reconciler) snapshotsOfContent(_ context.Context, o client.Object) []reconcile.Request {
	return []reconcile.Request{r.snapshotRequest(r.kind.ReadContent(o))}
}

// controllerOptions says how many objects a controller works on at a time, and when it tries
// again.
func (o *Options) controllerOptions() controller.Options {
	return controller.Options{
		MaxConcurrentReconciles: o.Workers,
		RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](o.RetryStart, o.RetryMax),
	}
}

// snapshotChanges lets through what users change, and that a snapshot is gone. What is
// written here wakes nobody, but for bad news: their cause may have gone while the
// cache did not show them yet.
func (r rules) snapshotChanges() predicate.Funcs {
	return predicate.Funcs{
		UpdateFunc: func(e event.UpdateEvent) bool {
			return e.ObjectOld.GetResourceVersion() == e.ObjectNew.GetResourceVersion() || // The resync.
				e.ObjectOld.GetUID() != e.ObjectNew.GetUID() ||
				e.ObjectOld.GetGeneration() != e.ObjectNew.GetGeneration() ||
				e.ObjectOld.GetDeletionTimestamp() == nil && e.ObjectNew.GetDeletionTimestamp() != nil ||
				e.ObjectOld.GetLabels()[snapshot.ClaimUID] != e.ObjectNew.GetLabels()[snapshot.ClaimUID] ||
				len(e.ObjectOld.GetOwnerReferences()) != len(e.ObjectNew.GetOwnerReferences()) ||
				restoreEnded(e) ||
				becameUnready(r.kind.ReadSnapshot(e.ObjectOld), r.kind.ReadSnapshot(e.ObjectNew))
		},
	}
}

// restoreEnded tells whether a provisioner needs a snapshot no longer.
func restoreEnded(e event.UpdateEvent) bool {
	return IsBeingRestored(e.ObjectOld) && !IsBeingRestored(e.ObjectNew)
}

// becameUnready tells whether a snapshot has another error, or is not ready any more.
func becameUnready(before, now *Snapshot) bool {
	text := errorMessage(now.Error)
	return text != "" && text != errorMessage(before.Error) || before.Ready && !now.Ready
}

// contentChanges lets through what a snapshot takes over or waits for. The record
// that the driver's half keeps in annotations, before and after it asks the
// driver, is not of it, nor is our own word that the content may go: whoever has
// given it goes on by himself.
func (r rules) contentChanges() predicate.Funcs {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		return contentChanged(r.kind.ReadContent(e.ObjectOld), r.kind.ReadContent(e.ObjectNew))
	}}
}

func contentChanged(before, now *Content) bool {
	a, b := before.Object, now.Object
	return a.GetResourceVersion() == b.GetResourceVersion() || // The resync.
		a.GetUID() != b.GetUID() || a.GetGeneration() != b.GetGeneration() || // Of the spec, or that it is being deleted.
		before.PreProvisioned != now.PreProvisioned ||
		!slices.Equal(a.GetFinalizers(), b.GetFinalizers()) || !equality.Semantic.DeepEqual(before.Status, now.Status)
}

// IsCreated lets through a new object.
func IsCreated() predicate.Funcs {
	return predicate.Funcs{
		UpdateFunc: func(event.UpdateEvent) bool { return false },
		DeleteFunc: func(event.DeleteEvent) bool { return false },
	}
}

// IsNotDeleted lets through all but that an object is gone.
func IsNotDeleted() predicate.Funcs {
	return predicate.Funcs{DeleteFunc: func(event.DeleteEvent) bool { return false }}
}
