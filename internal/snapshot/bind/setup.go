package bind

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
	"github.com/holdfast-io/holdfast/internal/turns"
)

// Setup adds the controllers to a manager whose cache has CacheOptions: the one
// of the snapshots, and the one that lets their claims go. Groups are nil where
// there are none.
func Setup(ctx context.Context, m ctrl.Manager, events *kube.Events, groups *Groups, o *Options) error {
	r := &Reconciler{
		client: m.GetClient(), live: m.GetAPIReader(),
		events: events, options: o, groups: groups, claims: &turns.Turns{}, waits: snapshot.Measured, now: time.Now,
	}
	if err := r.index(ctx, m); err != nil {
		return err
	}
	if o.Distributed {
		if err := kube.Warm(ctx, m, &corev1.Node{}); err != nil {
			return err
		}
	}
	err := errors.Join(r.snapshots(m), r.letClaimsGo(m), r.findLost(m), r.measure(m))
	if err != nil {
		return fmt.Errorf("adding the controllers: %w", err)
	}
	return nil
}

func (r *Reconciler) snapshots(m ctrl.Manager) error {
	each := func(lead handler.MapFunc) handler.EventHandler {
		return handler.EnqueueRequestsFromMapFunc(r.options.Mine(lead))
	}
	b := ctrl.NewControllerManagedBy(m).
		Named("bind-snapshot").
		For(&snapshotv1.VolumeSnapshot{}, builder.WithPredicates(wakes())).
		Watches(&snapshotv1.VolumeSnapshotContent{}, each(snapshotOf), builder.WithPredicates(contentChanges())).
		Watches(&snapshotv1.VolumeSnapshotClass{}, each(r.waitingForClass), builder.WithPredicates(notDeleted())).
		Watches(&corev1.PersistentVolumeClaim{}, each(r.waitingForClaim), builder.WithPredicates(claimChanges())).
		Watches(&corev1.PersistentVolume{}, each(r.waitingForVolume), builder.WithPredicates(appears())).
		WithOptions(r.options.Work())
	if r.groups != nil {
		b.WatchesRawSource(source.Channel(r.groups.Gone, &handler.EnqueueRequestForObject{}))
	}
	return b.Complete(kube.Finish(r))
}

func (r *Reconciler) letClaimsGo(m ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(m).
		Named("release-claim").
		For(&corev1.PersistentVolumeClaim{}, builder.WithPredicates(r.served(), appears())).
		Watches(&snapshotv1.VolumeSnapshot{}, handler.EnqueueRequestsFromMapFunc(claimKey), builder.WithPredicates(isDone())).
		WithOptions(r.options.Work()).
		Complete(kube.Finish(claims{r}))
}

// Work says how many objects a controller works on at a time, and when it tries
// again.
func (o *Options) Work() controller.Options {
	return controller.Options{
		MaxConcurrentReconciles: o.Workers,
		RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](o.RetryStart, o.RetryMax),
	}
}

// served lets through what is in a namespace whose snapshots are worked on.
func (r *Reconciler) served() predicate.Funcs {
	return predicate.NewPredicateFuncs(func(o client.Object) bool { return r.options.Serves(o.GetNamespace()) })
}

// wakes lets through what users change. What is written here wakes nobody, but for
// bad news: their cause may have gone while the cache did not show them yet.
func wakes() predicate.Funcs {
	return predicate.Funcs{
		UpdateFunc: func(e event.UpdateEvent) bool {
			return e.ObjectOld.GetResourceVersion() == e.ObjectNew.GetResourceVersion() || // The resync.
				e.ObjectOld.GetUID() != e.ObjectNew.GetUID() ||
				e.ObjectOld.GetGeneration() != e.ObjectNew.GetGeneration() ||
				e.ObjectOld.GetDeletionTimestamp() == nil && e.ObjectNew.GetDeletionTimestamp() != nil ||
				len(e.ObjectOld.GetOwnerReferences()) != len(e.ObjectNew.GetOwnerReferences()) ||
				isRestored(e.ObjectOld) && !isRestored(e.ObjectNew) ||
				worse(e.ObjectOld, e.ObjectNew)
		},
		DeleteFunc: func(event.DeleteEvent) bool { return false },
	}
}

// worse tells whether a snapshot has another error, or is not ready any more.
func worse(before, now client.Object) bool {
	status := func(o client.Object) (text string, ready bool) {
		if s, ok := o.(*snapshotv1.VolumeSnapshot); ok && s.Status != nil {
			return messageOf(s.Status.Error), ptr.Deref(s.Status.ReadyToUse, false)
		}
		return "", false
	}
	was, wasReady := status(before)
	is, isReady := status(now)
	return is != "" && is != was || wasReady && !isReady
}

// isDone lets through that a snapshot needs its claim no more.
func isDone() predicate.Funcs {
	needs := func(o client.Object) bool {
		s, ok := o.(*snapshotv1.VolumeSnapshot)
		return ok && needsClaim(s)
	}
	return predicate.Funcs{
		CreateFunc: func(event.CreateEvent) bool { return false },
		UpdateFunc: func(e event.UpdateEvent) bool { return needs(e.ObjectOld) && !needs(e.ObjectNew) },
	}
}

// appears lets through a new object.
func appears() predicate.Funcs {
	return predicate.Funcs{
		UpdateFunc: func(event.UpdateEvent) bool { return false },
		DeleteFunc: func(event.DeleteEvent) bool { return false },
	}
}

func notDeleted() predicate.Funcs {
	return predicate.Funcs{DeleteFunc: func(event.DeleteEvent) bool { return false }}
}

// contentChanges lets through what a snapshot takes over or waits for. The record
// that the driver's half keeps in annotations, before and after it asks the
// driver, is not of it, nor is our own word that the content may go: whoever has
// given it goes on by himself.
func contentChanges() predicate.Funcs {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, ok := e.ObjectOld.(*snapshotv1.VolumeSnapshotContent)
		now, is := e.ObjectNew.(*snapshotv1.VolumeSnapshotContent)
		return ok && is && contentChanged(&seen{content: before}, &seen{content: now})
	}}
}

func contentChanged(before, now *seen) bool {
	a, b := before.content, now.content
	return a.ResourceVersion == b.ResourceVersion || // The resync.
		a.UID != b.UID || a.Generation != b.Generation || // Of the spec, or that it is being deleted.
		before.memberContent() != now.memberContent() ||
		!slices.Equal(a.Finalizers, b.Finalizers) || !equality.Semantic.DeepEqual(a.Status, b.Status)
}

// claimChanges lets through that a claim has got its volume, or is gone.
func claimChanges() predicate.Funcs {
	phase := func(o client.Object) corev1.PersistentVolumeClaimPhase {
		claim, ok := o.(*corev1.PersistentVolumeClaim)
		if !ok {
			return ""
		}
		return claim.Status.Phase
	}
	return predicate.Funcs{
		CreateFunc: func(e event.CreateEvent) bool { return phase(e.Object) == corev1.ClaimBound },
		UpdateFunc: func(e event.UpdateEvent) bool { return phase(e.ObjectOld) != phase(e.ObjectNew) },
	}
}
