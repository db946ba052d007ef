package controller

import (
	"context"
	"errors"
	"fmt"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot/claimprotection"
)

// Groups is what the controllers of single snapshots ask about group snapshots. Group
// snapshots may have no controllers, or get them later.
type Groups interface {
	claimprotection.ClaimUser
	// UnfinishedOperations is how many operations on group snapshots have not ended.
	// One metric counts those on both kinds.
	UnfinishedOperations(ctx context.Context) int
}

// Controllers are the controllers that Setup has added, as far as those of group
// snapshots, which may start later, need them.
type Controllers struct {
	Claims    *claimprotection.Controller
	snapshots controller.Controller
}

// Setup adds the controllers of single snapshots, and the one that protects the claims
// of both kinds, to a manager whose cache has CacheOptions.
func Setup(ctx context.Context, m ctrl.Manager, events *kube.Events, groups Groups, o *Options) (*Controllers, error) {
	k := &singleKind{client: m.GetClient(), apiReader: m.GetAPIReader(), options: o}
	k.claims = claimprotection.New(m.GetClient(), m.GetAPIReader(), events, kube.RetryAfterConflict(o.RetryStart), k, groups)
	if err := index(ctx, m); err != nil {
		return nil, err
	}
	if o.Distributed {
		if err := kube.EnsureInformers(ctx, m, &corev1.Node{}); err != nil {
			return nil, err
		}
	}
	r := NewReconciler(m.GetClient(), m.GetAPIReader(), k, events, o)
	snapshots, err := k.setUpSnapshots(m, r)
	err = errors.Join(err, k.setUpClaimProtection(m), r.SetUpOrphans(m), r.SetUpStranded(m), r.registerMetrics(m, groups))
	if err != nil {
		return nil, fmt.Errorf("adding the controllers: %w", err)
	}
	return &Controllers{Claims: k.claims, snapshots: snapshots}, nil
}

func (k *singleKind) setUpSnapshots(m ctrl.Manager, r *Reconciler) (controller.Controller, error) {
	return r.Build(r.NewController(m).
		Watches(&snapshotv1.VolumeSnapshotClass{}, r.Enqueue(k.waitingForClass), builder.WithPredicates(IsNotDeleted(), kube.SkipInitialList())).
		Watches(&corev1.PersistentVolumeClaim{}, r.Enqueue(k.waitingForClaim), builder.WithPredicates(claimChanges(), kube.SkipInitialList())).
		Watches(&corev1.PersistentVolume{}, r.Enqueue(k.waitingForVolume), builder.WithPredicates(IsCreated(), kube.SkipInitialList())))
}

func (k *singleKind) setUpClaimProtection(m ctrl.Manager) error {
	if err := k.claims.SetUp(m, k.options.IsSelected, k.options.controllerOptions()); err != nil {
		return err
	}
	return k.claims.WakeBy(m.GetCache(), &snapshotv1.VolumeSnapshot{}, sourceClaimRequests, noLongerNeedsClaim())
}

// WakeSnapshotsBy makes events of objects wake the snapshots that lead returns. It can
// be called at any time: the CRDs of the objects may be installed later.
func (c *Controllers) WakeSnapshotsBy(from cache.Cache, object client.Object, lead handler.MapFunc, when predicate.Predicate) error {
	if err := c.snapshots.Watch(source.Kind(from, object, handler.EnqueueRequestsFromMapFunc(lead), when)); err != nil {
		return fmt.Errorf("watching %T, which wake snapshots: %w", object, err)
	}
	return nil
}

// NewController begins the controller of the snapshots of a kind: their changes, and
// those of their contents, wake them. The kind adds what else they wait for.
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

// Build adds the controller that NewController has begun to the manager.
func (r *Reconciler) Build(b *builder.Builder) (controller.Controller, error) {
	return b.Build(kube.DrainOnStop(r))
}

// controllerOptions are the concurrency and the backoff of a controller.
func (o *Options) controllerOptions() controller.Options {
	return controller.Options{
		MaxConcurrentReconciles: o.Workers,
		RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](o.RetryStart, o.RetryMax),
	}
}
