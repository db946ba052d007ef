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
	"github.com/holdfast-io/holdfast/internal/provision/pending"
	"github.com/holdfast-io/holdfast/internal/provision/source"
)

// Setup adds the guard to a manager: a source is looked at when an intent that
// names it goes, when a cloned claim is deleted, and by the sweeper.
func (c *Controller) Setup(m ctrl.Manager, driver *csi.Driver, o *Options) error {
	info := driver.Info()
	if o.SweepInterval > 0 && info.Has(csipb.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT) {
		if err := m.Add(&sweeper{controller: c, interval: o.SweepInterval}); err != nil {
			return err
		}
	}
	goes := predicate.Funcs{
		CreateFunc: func(event.CreateEvent) bool { return false },
		UpdateFunc: func(event.UpdateEvent) bool { return false },
	}
	return builder.TypedControllerManagedBy[source.Source](m).
		Named("provision-guard").
		Watches(&coordinationv1.Lease{}, enqueueSources(sourceOfOperation), builder.WithPredicates(goes)).
		Watches(&corev1.PersistentVolumeClaim{}, enqueueSources(deletedCloneSource)).
		Watches(&corev1.PersistentVolumeClaim{}, enqueueSources(c.sourceOfClone), builder.WithPredicates(gotVolumeOrDeleted())).
		WatchesRawSource(rawsource.TypedChannel(c.queue, enqueueItself())).
		WithOptions(controller.TypedOptions[source.Source]{
			MaxConcurrentReconciles: o.ProtectionWorkers,
			RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[source.Source](o.RetryStart, o.RetryMax),
		}).
		Complete(kube.DrainOnStop(c))
}

func enqueueSources(of func(client.Object) []source.Source) handler.TypedEventHandler[client.Object, source.Source] {
	return handler.TypedEnqueueRequestsFromMapFunc(func(_ context.Context, o client.Object) []source.Source { return of(o) })
}

// enqueueItself asks for the source itself.
func enqueueItself() handler.TypedEventHandler[source.Source, source.Source] {
	return handler.TypedEnqueueRequestsFromMapFunc(func(_ context.Context, s source.Source) []source.Source { return []source.Source{s} })
}

func sourceOfOperation(lease client.Object) []source.Source {
	if s, ok := pending.SourceOf(lease); ok {
		return []source.Source{s}
	}
	return nil
}

// deletedCloneSource is a claim that was cloned and is on its way out.
func deletedCloneSource(o client.Object) []source.Source {
	if o.GetDeletionTimestamp() == nil || !slices.Contains(o.GetFinalizers(), kube.CloneSourceFinalizer) {
		return nil
	}
	return []source.Source{{Kind: source.KindClaim, Namespace: o.GetNamespace(), Name: o.GetName()}}
}

// gotVolumeOrDeleted lets through that a claim has got a volume, or is gone.
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

// sourceOfClone is the claim that a claim was to be cloned from, if that is being deleted
// and may wait for the clone.
func (c *Controller) sourceOfClone(o client.Object) []source.Source {
	claim, ok := o.(*corev1.PersistentVolumeClaim)
	if !ok {
		return nil
	}
	from, ours := source.Of(claim)
	if from == nil || !ours || from.Kind != source.KindClaim {
		return nil
	}
	cloned := &corev1.PersistentVolumeClaim{}
	key := client.ObjectKey{Namespace: from.Namespace, Name: from.Name}
	if err := c.client.Get(context.Background(), key, cloned); err != nil || len(deletedCloneSource(cloned)) == 0 {
		return nil // It is gone, or stays.
	}
	return []source.Source{*from}
}
