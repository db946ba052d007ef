package provision

import (
	"context"
	"slices"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
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

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/kube"
)

// setup adds the guard to a manager: a source is looked at when an intent that
// names it goes, when a cloned claim is deleted, and by the sweeper.
func (g *guard) setup(m ctrl.Manager, driver *csi.Driver, o *Options) error {
	info := driver.Info()
	if o.SweepInterval > 0 && info.Has(csipb.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT) {
		if err := m.Add(&sweeper{guard: g, interval: o.SweepInterval}); err != nil {
			return err
		}
	}
	goes := predicate.Funcs{
		CreateFunc: func(event.CreateEvent) bool { return false },
		UpdateFunc: func(event.UpdateEvent) bool { return false },
	}
	return builder.TypedControllerManagedBy[source](m).
		Named("provision-guard").
		Watches(&coordinationv1.Lease{}, sources(ofIntent), builder.WithPredicates(goes)).
		Watches(&corev1.PersistentVolumeClaim{}, sources(ofClonedClaim)).
		Watches(&corev1.PersistentVolumeClaim{}, sources(g.ofClone), builder.WithPredicates(ends())).
		WatchesRawSource(rawsource.TypedChannel(g.freed, freedHandler())).
		WithOptions(controller.TypedOptions[source]{
			MaxConcurrentReconciles: o.GuardWorkers,
			RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[source](o.RetryStart, o.RetryMax),
		}).
		Complete(kube.DrainOnStop(g))
}

func sources(of func(client.Object) []source) handler.TypedEventHandler[client.Object, source] {
	return handler.TypedEnqueueRequestsFromMapFunc(func(_ context.Context, o client.Object) []source { return of(o) })
}

// freedHandler asks for the source itself.
func freedHandler() handler.TypedEventHandler[source, source] {
	return handler.TypedEnqueueRequestsFromMapFunc(func(_ context.Context, s source) []source { return []source{s} })
}

func ofIntent(o client.Object) []source {
	if s, ok := readSource(o.GetAnnotations()[sourceAnnotation]); ok {
		return []source{s}
	}
	return nil
}

// ofClonedClaim is a claim that was cloned and is on its way out.
func ofClonedClaim(o client.Object) []source {
	if o.GetDeletionTimestamp() == nil || !slices.Contains(o.GetFinalizers(), kube.CloneSourceFinalizer) {
		return nil
	}
	return []source{{Kind: kindClaim, Namespace: o.GetNamespace(), Name: o.GetName()}}
}

// ends lets through that a claim has got a volume, or is gone.
func ends() predicate.Funcs {
	return predicate.Funcs{
		CreateFunc: func(event.CreateEvent) bool { return false },
		UpdateFunc: func(e event.UpdateEvent) bool {
			was, ok1 := e.ObjectOld.(*corev1.PersistentVolumeClaim)
			is, ok2 := e.ObjectNew.(*corev1.PersistentVolumeClaim)
			return ok1 && ok2 && was.Spec.VolumeName == "" && is.Spec.VolumeName != ""
		},
	}
}

// ofClone is the claim that a claim was to be cloned from, if that is being deleted
// and may wait for the clone.
func (g *guard) ofClone(o client.Object) []source {
	claim, ok := o.(*corev1.PersistentVolumeClaim)
	if !ok {
		return nil
	}
	from, ours := sourceOf(claim)
	if from == nil || !ours || from.Kind != kindClaim {
		return nil
	}
	cloned := &corev1.PersistentVolumeClaim{}
	key := client.ObjectKey{Namespace: from.Namespace, Name: from.Name}
	if err := g.client.Get(context.Background(), key, cloned); err != nil || len(ofClonedClaim(cloned)) == 0 {
		return nil // It is gone, or stays.
	}
	return []source{*from}
}
