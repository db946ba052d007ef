package provision

import (
	"context"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/provision/pending"
	"github.com/holdfast-io/holdfast/internal/provision/pernode"
	"github.com/holdfast-io/holdfast/internal/provision/placement"
	"github.com/holdfast-io/holdfast/internal/provision/protection"
	"github.com/holdfast-io/holdfast/internal/provision/source"
)

// Setup adds the controller to a manager whose cache has CacheOptions.
func Setup(ctx context.Context, m ctrl.Manager, driver *csi.Driver, events *kube.Events, o *Options) error {
	r := &Reconciler{
		client: m.GetClient(), apiReader: m.GetAPIReader(), driver: driver, events: events, options: o, log: m.GetLogger(),
		pending: pending.NewStore(pending.Options{
			Client: m.GetClient(), APIReader: m.GetAPIReader(), Namespace: o.Namespace, Driver: o.Driver, Node: o.Node.Name, Identity: o.Identity,
			NamesCollide: o.truncatesUID(),
		}),
		sources: source.Resolver{Reader: m.GetAPIReader(), Plugin: o.Plugin},
		race:    pernode.NewRace(&o.Node),
		nodes:   placement.NewLive(m.GetAPIReader(), o.Driver),
	}
	if r.readsNodes() {
		r.nodes = placement.NewCache(m.GetClient(), o.Driver)
	}
	r.protection = r.newProtection(m)
	if err := r.index(ctx, m); err != nil {
		return err
	}
	if err := kube.EnsureInformers(ctx, m, r.cachedKinds()...); err != nil {
		return err
	}
	if err := r.volumes.setup(ctx, m); err != nil {
		return err
	}
	if err := r.protection.Setup(m); err != nil {
		return err
	}
	b := ctrl.NewControllerManagedBy(m).
		Named("provision").
		For(&corev1.PersistentVolumeClaim{}, builder.WithPredicates(predicate.NewPredicateFuncs(r.needsVolume))).
		Watches(&coordinationv1.Lease{}, handler.EnqueueRequestsFromMapFunc(requestForOperation), builder.WithPredicates(r.pending.Events(r.hasSuccessor))).
		Watches(&storagev1.StorageClass{}, r.enqueueWaiting(claimsByClass, func(o client.Object) []string { return []string{o.GetName()} })).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: o.Workers,
			RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](o.RetryStart, o.RetryMax),
		})
	if err := r.watchDependencies(m, b); err != nil {
		return err
	}
	return b.Complete(kube.DrainOnStop(r))
}

// newProtection returns the controller that protects the sources of volumes.
func (r *Reconciler) newProtection(m ctrl.Manager) *protection.Controller {
	o := r.options
	p := protection.Options{
		Events: r.events,
		Driver: o.Driver, Plugin: o.Plugin, Namespace: o.Namespace, Shared: o.Node.Deployed,
		Workers: o.ProtectionWorkers, RetryStart: o.RetryStart, RetryMax: o.RetryMax,
		IsOurClaim: o.isOurClaim, WaitingClaims: r.claimsWithoutVolume,
	}
	if r.driver.Info().Has(csipb.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT) {
		p.SweepInterval = o.SweepInterval
	}
	return protection.New(m.GetClient(), m.GetAPIReader(), p)
}

// cachedKinds returns the kinds that are read from the cache and not watched.
func (r *Reconciler) cachedKinds() []client.Object {
	kinds := []client.Object{&corev1.PersistentVolume{}}
	if r.readsNodes() {
		kinds = append(kinds, &corev1.Node{}, &storagev1.CSINode{})
	}
	return kinds
}

// readsNodes reports whether the driver's topology is read from the nodes.
func (r *Reconciler) readsNodes() bool {
	return !r.options.Node.Deployed && r.info().HasService(csipb.PluginCapability_Service_VOLUME_ACCESSIBILITY_CONSTRAINTS)
}

// needsVolume reports whether an object is a claim that waits for a volume from us.
func (r *Reconciler) needsVolume(o client.Object) bool {
	claim, ok := o.(*corev1.PersistentVolumeClaim)
	return ok && r.options.needsVolume(claim)
}

// hasSuccessor reports whether another claim now has the name of the claim of an
// operation that is gone. That claim has waited for the end of the operation.
func (r *Reconciler) hasSuccessor(lease client.Object) bool {
	for _, request := range requestForOperation(context.Background(), lease) {
		claim := &corev1.PersistentVolumeClaim{}
		if err := r.client.Get(context.Background(), request.NamespacedName, claim); err == nil {
			return pending.LeaseName(claim.UID) != lease.GetName()
		}
	}
	return false
}

// requestForOperation maps the Lease of a pending operation to its claim.
func requestForOperation(_ context.Context, lease client.Object) []reconcile.Request {
	claim, ok := pending.ClaimOf(lease)
	if !ok {
		return nil
	}
	return []reconcile.Request{{NamespacedName: claim}}
}
