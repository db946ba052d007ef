package sidecar

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/kube"
)

// CheckCapabilities is an error if the driver can make no snapshots: the role has no work
// then, and somebody has put it in the wrong place.
func CheckCapabilities(driver *csi.Driver) error {
	if !driver.Info().Has(csipb.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT) {
		return errors.New("driver " + driver.Info().Name + " does not make snapshots: it does not announce CREATE_DELETE_SNAPSHOT")
	}
	return nil
}

// Setup adds the two lanes of a kind of contents to a manager.
func Setup(ctx context.Context, m ctrl.Manager, driver *csi.Driver, events *kube.Events, o *Options) error {
	kind := o.Kind
	r := &Reconciler{
		client: m.GetClient(), apiReader: m.GetAPIReader(),
		driver: driver, events: events, kind: kind, keys: kind.Keys(), options: o, now: time.Now,
	}
	if err := r.indexByClass(ctx, m); err != nil {
		return err
	}
	err := errors.Join(
		r.newController(m, "cut-", false).Watches(kind.NewClass(), handler.EnqueueRequestsFromMapFunc(r.contentsOfClass)).Complete(kube.DrainOnStop(queue{r, false})),
		r.newController(m, "delete-", true).Complete(kube.DrainOnStop(queue{r, true})))
	if err != nil {
		return fmt.Errorf("adding the controllers of %ss: %w", kind.Name(), err)
	}
	return nil
}

// newController begins a controller for the contents that may go, or for all others. A
// content whose going is prepared does not wake the lane that deletes: woken
// twice within a moment, that would delete a snapshot twice before its cache
// shows that the content is gone.
func (r *Reconciler) newController(m ctrl.Manager, verb string, deletions bool) *builder.Builder {
	return ctrl.NewControllerManagedBy(m).
		Named(verb+r.kind.Name()).
		For(r.kind.New(), builder.WithPredicates(r.onlyOurs(), r.onlyQueue(deletions), r.onlyExternalChanges())).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: r.options.Workers,
			RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](r.options.RetryStart, r.options.RetryMax),
		})
}

// byClass is the index of contents that have no snapshot yet by their class.
const byClass = "waits-for-class"

func (r *Reconciler) indexByClass(ctx context.Context, m ctrl.Manager) error {
	err := m.GetFieldIndexer().IndexField(ctx, r.kind.New(), byClass, func(o client.Object) []string {
		c := r.kind.Read(o)
		if c.Driver != r.options.Driver || c.Class == "" || c.handle() != "" {
			return nil
		}
		return []string{c.Class}
	})
	if err != nil {
		return fmt.Errorf("indexing contents by class: %w", err)
	}
	return nil
}

// contentsOfClass leads from a class to the contents that may be waiting for it.
func (r *Reconciler) contentsOfClass(ctx context.Context, class client.Object) []reconcile.Request {
	list := r.kind.NewList()
	if err := r.client.List(ctx, list, client.MatchingFields{byClass: class.GetName()}); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "The contents of a class could not be listed", "class", class.GetName())
		return nil
	}
	var waiting []reconcile.Request
	_ = meta.EachListItem(list, func(o runtime.Object) error {
		waiting = append(waiting, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(o.(client.Object))}) //nolint:forcetypeassert // It is of the kind.
		return nil
	})
	return waiting
}

func (r *Reconciler) onlyOurs() predicate.Funcs {
	return predicate.NewPredicateFuncs(func(o client.Object) bool {
		c := r.kind.Read(o)
		return r.options.isOurs(&c)
	})
}

// onlyQueue lets through what is a lane's work, as it is now.
func (r *Reconciler) onlyQueue(deletions bool) predicate.Funcs {
	return predicate.NewPredicateFuncs(func(o client.Object) bool {
		return r.canDelete(&state{Content: r.kind.Read(o)}) == deletions
	})
}

// onlyExternalChanges lets through what somebody else changes. What this half writes itself
// wakes nobody.
func (r *Reconciler) onlyExternalChanges() predicate.Funcs {
	return predicate.Funcs{
		UpdateFunc: func(e event.UpdateEvent) bool { return r.hasExternalChange(e.ObjectOld, e.ObjectNew) },
		DeleteFunc: func(event.DeleteEvent) bool { return false },
	}
}

func (r *Reconciler) hasExternalChange(before, now client.Object) bool {
	a, b := r.kind.Read(before), r.kind.Read(now)
	return before.GetResourceVersion() == now.GetResourceVersion() || // The resync.
		before.GetGeneration() != now.GetGeneration() || // Of the spec, or that it is being deleted.
		(before.GetDeletionTimestamp() == nil) != (now.GetDeletionTimestamp() == nil) ||
		a.Ready && !b.Ready || a.GroupHandle != b.GroupHandle || a.Handle != "" && b.Handle == "" ||
		!equality.Semantic.DeepEqual(r.externalAnnotations(before), r.externalAnnotations(now))
}

// externalAnnotations are the annotations that others write.
func (r *Reconciler) externalAnnotations(o client.Object) map[string]string {
	all := maps.Clone(o.GetAnnotations())
	delete(all, r.keys.BeingCreated)
	delete(all, requestAnnotation)
	delete(all, rejectedSinceAnnotation)
	return all
}
