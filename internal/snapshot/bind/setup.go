package bind

import (
	"context"
	"errors"
	"fmt"
	"slices"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// Setup adds the controllers of single snapshots to a manager whose cache has
// CacheOptions: the one of the snapshots, and the one that lets their claims go.
// Groups are nil where there are none.
func Setup(ctx context.Context, m ctrl.Manager, events *kube.Events, groups *Groups, o *Options) error {
	claims := NewClaims(m.GetClient(), m.GetAPIReader(), groups, kube.Soon(o.RetryStart))
	if groups != nil {
		groups.Claims = claims
	}
	k := &single{client: m.GetClient(), options: o, groups: groups, claims: claims}
	if err := index(ctx, m); err != nil {
		return err
	}
	if o.Distributed {
		if err := kube.Warm(ctx, m, &corev1.Node{}); err != nil {
			return err
		}
	}
	engine := New(m.GetClient(), m.GetAPIReader(), k, events, o)
	err := errors.Join(k.snapshots(m, engine), k.letClaimsGo(m), engine.FindLost(m), engine.measure(m, groups))
	if err != nil {
		return fmt.Errorf("adding the controllers: %w", err)
	}
	return nil
}

func (k *single) snapshots(m ctrl.Manager, engine *Reconciler) error {
	b := engine.Controller(m).
		Watches(&snapshotv1.VolumeSnapshotClass{}, engine.Each(k.waitingForClass), builder.WithPredicates(NotDeleted(), kube.AfterStart())).
		Watches(&corev1.PersistentVolumeClaim{}, engine.Each(k.waitingForClaim), builder.WithPredicates(claimChanges(), kube.AfterStart())).
		Watches(&corev1.PersistentVolume{}, engine.Each(k.waitingForVolume), builder.WithPredicates(Appears(), kube.AfterStart()))
	if k.groups != nil {
		b.WatchesRawSource(source.Channel(k.groups.Gone, &handler.EnqueueRequestForObject{}))
	}
	return engine.Complete(b)
}

func (k *single) letClaimsGo(m ctrl.Manager) error {
	served := predicate.NewPredicateFuncs(func(o client.Object) bool { return k.options.Serves(o.GetNamespace()) })
	return ctrl.NewControllerManagedBy(m).
		Named("release-claim").
		For(&corev1.PersistentVolumeClaim{}, builder.WithPredicates(served, Appears())).
		Watches(&snapshotv1.VolumeSnapshot{}, handler.EnqueueRequestsFromMapFunc(claimKey), builder.WithPredicates(isDone())).
		Watches(&corev1.PersistentVolumeClaim{}, lookLater(), builder.WithPredicates(served)).
		WithOptions(k.options.work()).
		Complete(kube.Finish(k.claims))
}

// lookLater looks at a claim a while after the cache shows that it is kept: its
// snapshot may have been cut before, and who looked then saw a claim that nobody
// keeps. By then most are free.
func lookLater() handler.Funcs {
	kept := func(o client.Object) bool { return slices.Contains(o.GetFinalizers(), snapshot.ClaimFinalizer) }
	return handler.Funcs{
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) {
			if !kept(e.ObjectOld) && kept(e.ObjectNew) {
				queue.AddAfter(Key(e.ObjectNew.GetNamespace(), e.ObjectNew.GetName()), patience)
			}
		},
	}
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

// claimChanges lets through that a claim has got its volume, is gone, or is another
// one of its name.
func claimChanges() predicate.Funcs {
	return predicate.Funcs{
		CreateFunc: func(e event.CreateEvent) bool { return phase(e.Object) == corev1.ClaimBound },
		UpdateFunc: IsOtherClaim,
	}
}

// IsOtherClaim tells whether who waits for a claim must look at it again: its phase is
// another one, or it was deleted and made again, which may come as one change.
func IsOtherClaim(e event.UpdateEvent) bool {
	return phase(e.ObjectOld) != phase(e.ObjectNew) || e.ObjectOld.GetUID() != e.ObjectNew.GetUID()
}

func phase(o client.Object) corev1.PersistentVolumeClaimPhase {
	claim, ok := o.(*corev1.PersistentVolumeClaim)
	if !ok {
		return ""
	}
	return claim.Status.Phase
}
