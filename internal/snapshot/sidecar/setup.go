package sidecar

import (
	"context"
	"errors"
	"fmt"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
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
