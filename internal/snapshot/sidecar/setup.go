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

// CheckCapabilities returns an error if the driver does not support snapshots: the role was
// deployed next to the wrong driver.
func CheckCapabilities(driver *csi.Driver) error {
	if !driver.Info().Has(csipb.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT) {
		return errors.New("driver " + driver.Info().Name + " does not support snapshots: it lacks capability CREATE_DELETE_SNAPSHOT")
	}
	return nil
}

// Setup adds the controllers for a kind of contents to a manager, one for each queue.
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
		r.newController(m, "create-", false).Watches(kind.NewClass(), handler.EnqueueRequestsFromMapFunc(r.contentsOfClass)).Complete(kube.DrainOnStop(queue{r, false})),
		r.newController(m, "delete-", true).Complete(kube.DrainOnStop(queue{r, true})))
	if err != nil {
		return fmt.Errorf("adding the controllers of %ss: %w", kind.Name(), err)
	}
	return nil
}

// newController builds the controller for the contents to delete, or for all others. Its
// predicate passes only objects that belong to its queue, so preparing a deletion does not
// trigger the deletion queue: triggered twice in short order, it would delete a snapshot
// twice before the cache shows that the content is gone.
func (r *Reconciler) newController(m ctrl.Manager, verb string, deletions bool) *builder.Builder {
	return ctrl.NewControllerManagedBy(m).
		Named(verb+r.kind.Name()).
		For(r.kind.New(), builder.WithPredicates(r.onlyOurs(), r.onlyQueue(deletions), r.onlyExternalChanges())).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: r.options.Workers,
			RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](r.options.RetryStart, r.options.RetryMax),
		})
}
