package attach

import (
	"context"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/kube"
)

// Setup adds the attacher's controllers to a manager: the attach queue, the
// detach queue and the finalizer controller, as well as the drift check and the
// timeout marker.
func Setup(ctx context.Context, m ctrl.Manager, driver *csi.Driver, events *kube.Events, o *Options) error {
	r := &Reconciler{
		client: m.GetClient(), apiReader: m.GetAPIReader(), minVersion: kube.NewMinResourceVersion(m.GetAPIReader(), &storagev1.VolumeAttachmentList{}),
		driver: driver, events: events, options: o, resyncs: &resyncRequests{},
	}
	if err := r.index(ctx, m); err != nil {
		return err
	}
	// A replica without access to these must not become leader.
	if err := kube.EnsureInformers(ctx, m, &corev1.PersistentVolume{}, &storagev1.CSINode{}); err != nil {
		return err
	}
	s := newDriftChecker(r)
	if err := r.newQueueController(m, "attach", false, s.attachEvents).
		Watches(&corev1.PersistentVolume{}, handler.EnqueueRequestsFromMapFunc(r.unattached(attachmentsByVolume)), builder.WithPredicates(createdOnly(), kube.SkipInitialList())).
		Watches(&storagev1.CSINode{}, handler.EnqueueRequestsFromMapFunc(r.unattached(attachmentsByNode)), builder.WithPredicates(r.nodeIDChanged(), kube.SkipInitialList())).
		Complete(kube.DrainOnStop(queue{r, false})); err != nil {
		return err
	}
	if err := r.newQueueController(m, "detach", true, s.detachEvents).Complete(kube.DrainOnStop(queue{r, true})); err != nil {
		return err
	}
	if err := r.setupFinalizerController(m); err != nil {
		return err
	}
	for _, runnable := range []manager.Runnable{r.minVersion, &timeoutMarker{r}} {
		if err := m.Add(runnable); err != nil {
			return err
		}
	}
	if err := s.addTo(m); err != nil {
		return err
	}
	return r.registerMetrics(m, s)
}

// registerMetrics registers the metrics. It replaces those of an earlier
// manager in this process.
func (r *Reconciler) registerMetrics(m ctrl.Manager, s *driftChecker) error {
	for _, c := range []prometheus.Collector{timeouts, &collector{r, m.GetCache(), s}} {
		metrics.Registry.Unregister(c)
		if err := metrics.Registry.Register(c); err != nil {
			return fmt.Errorf("registering metrics: %w", err)
		}
	}
	return nil
}

// newQueueController starts to build the controller of a queue.
func (r *Reconciler) newQueueController(m ctrl.Manager, name string, detach bool, resyncs chan event.GenericEvent) *builder.Builder {
	return ctrl.NewControllerManagedBy(m).
		Named(name).
		For(&storagev1.VolumeAttachment{}, builder.WithPredicates(predicate.NewPredicateFuncs(r.isOurs), startsWork(detach))).
		WatchesRawSource(source.Channel(resyncs, &handler.EnqueueRequestForObject{})).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: r.options.Workers,
			RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](r.options.RetryStart, r.options.RetryMax),
		})
}
