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

// New makes the engine for a kind of snapshots, with a client that reads from a
// cache and one that does not. What Controller has begun and FindLost are to be
// added to the manager.
func New(cached client.Client, live client.Reader, kind Kind, events *kube.Events, o *Options) *Reconciler {
	return &Reconciler{
		judge: newJudge(kind, o), client: cached, live: live,
		events: events, options: o, waits: snapshot.OperationMetrics, now: time.Now,
	}
}

// Controller begins the controller that works on the snapshots: it wakes them up
// when they change, or their contents. What else they wait for the kind adds.
func (r *Reconciler) Controller(m ctrl.Manager) *builder.Builder {
	served := predicate.NewPredicateFuncs(func(o client.Object) bool { return r.options.Serves(o.GetNamespace()) })
	b := ctrl.NewControllerManagedBy(m).
		Named("bind-"+r.Name).
		For(r.kind.New(), builder.WithPredicates(served, r.wakes())).
		Watches(r.kind.NewContent(), r.Each(r.snapshotOf), builder.WithPredicates(r.contentChanges(), kube.SkipInitialList())).
		WithOptions(r.options.work())
	if r.options.Distributed {
		b.Watches(&corev1.Node{}, r.Each(r.leavingOn(r.userOf)), builder.WithPredicates(disappears()))
	}
	return b
}

// userOf is the snapshot that a content belongs to.
func (r *Reconciler) userOf(c *Content) reconcile.Request { return Key(c.Ref.Namespace, c.Ref.Name) }

// Complete adds the controller that Controller has begun.
func (r *Reconciler) Complete(b *builder.Builder) error { return b.Complete(kube.DrainOnStop(r)) }

// Each wakes the snapshots that an object leads to, of those that are worked on.
func (r *Reconciler) Each(lead handler.MapFunc) handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(r.options.mine(lead))
}

// snapshotOf leads from a content to its snapshot.
func (r *Reconciler) snapshotOf(_ context.Context, o client.Object) []reconcile.Request {
	return []reconcile.Request{r.userOf(r.kind.ReadContent(o))}
}

// work says how many objects a controller works on at a time, and when it tries
// again.
func (o *Options) work() controller.Options {
	return controller.Options{
		MaxConcurrentReconciles: o.Workers,
		RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](o.RetryStart, o.RetryMax),
	}
}

// wakes lets through what users change, and that a snapshot is gone. What is
// written here wakes nobody, but for bad news: their cause may have gone while the
// cache did not show them yet.
func (j judge) wakes() predicate.Funcs {
	return predicate.Funcs{
		UpdateFunc: func(e event.UpdateEvent) bool {
			return e.ObjectOld.GetResourceVersion() == e.ObjectNew.GetResourceVersion() || // The resync.
				e.ObjectOld.GetUID() != e.ObjectNew.GetUID() ||
				e.ObjectOld.GetGeneration() != e.ObjectNew.GetGeneration() ||
				e.ObjectOld.GetDeletionTimestamp() == nil && e.ObjectNew.GetDeletionTimestamp() != nil ||
				e.ObjectOld.GetLabels()[snapshot.ClaimUID] != e.ObjectNew.GetLabels()[snapshot.ClaimUID] ||
				len(e.ObjectOld.GetOwnerReferences()) != len(e.ObjectNew.GetOwnerReferences()) ||
				restored(e) ||
				worse(j.kind.Read(e.ObjectOld), j.kind.Read(e.ObjectNew))
		},
	}
}

// restored tells whether a provisioner needs a snapshot no longer.
func restored(e event.UpdateEvent) bool { return IsRestored(e.ObjectOld) && !IsRestored(e.ObjectNew) }

// worse tells whether a snapshot has another error, or is not ready any more.
func worse(before, now *Snapshot) bool {
	is := messageOf(now.Error)
	return is != "" && is != messageOf(before.Error) || before.Ready && !now.Ready
}

// contentChanges lets through what a snapshot takes over or waits for. The record
// that the driver's half keeps in annotations, before and after it asks the
// driver, is not of it, nor is our own word that the content may go: whoever has
// given it goes on by himself.
func (j judge) contentChanges() predicate.Funcs {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		return contentChanged(j.kind.ReadContent(e.ObjectOld), j.kind.ReadContent(e.ObjectNew))
	}}
}

func contentChanged(before, now *Content) bool {
	a, b := before.Object, now.Object
	return a.GetResourceVersion() == b.GetResourceVersion() || // The resync.
		a.GetUID() != b.GetUID() || a.GetGeneration() != b.GetGeneration() || // Of the spec, or that it is being deleted.
		before.PreProvisioned != now.PreProvisioned ||
		!slices.Equal(a.GetFinalizers(), b.GetFinalizers()) || !equality.Semantic.DeepEqual(before.Status, now.Status)
}

// Appears lets through a new object.
func Appears() predicate.Funcs {
	return predicate.Funcs{
		UpdateFunc: func(event.UpdateEvent) bool { return false },
		DeleteFunc: func(event.DeleteEvent) bool { return false },
	}
}

// NotDeleted lets through all but that an object is gone.
func NotDeleted() predicate.Funcs {
	return predicate.Funcs{DeleteFunc: func(event.DeleteEvent) bool { return false }}
}
