package resize

import (
	"context"
	"fmt"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/kube"
)

// Setup adds the controller to a manager, for a driver that is Able.
func Setup(ctx context.Context, m ctrl.Manager, driver *csi.Driver, events *kube.Events, o *Options) error {
	r := &Reconciler{client: m.GetClient(), apiReader: m.GetAPIReader(), driver: driver, events: events, options: o, now: time.Now}
	var err error
	if r.nodeExpands, err = expandsOnNodes(ctx, driver); err != nil {
		return err
	}
	if r.followsClasses, err = r.detectClasses(m); err != nil {
		return err
	}
	watcher, err := client.NewWithWatch(m.GetConfig(), client.Options{HTTPClient: m.GetHTTPClient(), Scheme: m.GetScheme(), Mapper: m.GetRESTMapper()})
	if err != nil {
		return fmt.Errorf("making a client that looks for pods: %w", err)
	}
	r.pods = newPodWatcher(ctx, watcher)
	b := ctrl.NewControllerManagedBy(m).
		Named("resize").
		Watches(&corev1.PersistentVolumeClaim{}, handler.EnqueueRequestsFromMapFunc(r.requestsForClaim), builder.WithPredicates(claimChanged())).
		Watches(&corev1.PersistentVolume{}, handler.EnqueueRequestsFromMapFunc(r.requestsForVolume), builder.WithPredicates(r.volumeChanged())).
		WatchesRawSource(source.Channel(r.pods.ended, handler.EnqueueRequestsFromMapFunc(r.requestsForClaim))).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: o.Workers,
			RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](o.RetryStart, o.RetryMax),
		})
	if r.followsClasses {
		if err := m.GetFieldIndexer().IndexField(ctx, &corev1.PersistentVolumeClaim{}, claimsByClass, pendingClasses); err != nil {
			return fmt.Errorf("indexing claims by their VolumeAttributesClass: %w", err)
		}
		b.Watches(&storagev1.VolumeAttributesClass{}, handler.EnqueueRequestsFromMapFunc(r.requestsForClass), builder.WithPredicates(createdOnly()))
	}
	return b.Complete(kube.DrainOnStop(r))
}

// CheckCapabilities is an error for a driver that has nothing for this controller to do.
func CheckCapabilities(ctx context.Context, driver *csi.Driver) error {
	info := driver.Info()
	if !info.HasService(csipb.PluginCapability_Service_CONTROLLER_SERVICE) {
		return fmt.Errorf("driver %s cannot be served: it does not announce CONTROLLER_SERVICE; is this the socket of its controller?", info.Name)
	}
	if info.Has(csipb.ControllerServiceCapability_RPC_EXPAND_VOLUME) || info.Has(csipb.ControllerServiceCapability_RPC_MODIFY_VOLUME) {
		return nil
	}
	node, err := expandsOnNodes(ctx, driver)
	if err == nil && !node {
		err = fmt.Errorf("driver %s cannot be served: it announces neither EXPAND_VOLUME, for its controller or its nodes, nor MODIFY_VOLUME; "+
			"take this program out of its deployment", info.Name)
	}
	return err
}

// expandsOnNodes asks for what only matters if the driver has nothing to do
// before its nodes have.
func expandsOnNodes(ctx context.Context, driver *csi.Driver) (bool, error) {
	if driver.Info().Has(csipb.ControllerServiceCapability_RPC_EXPAND_VOLUME) {
		return false, nil
	}
	node, err := driver.HasNodeCapability(ctx, csipb.NodeServiceCapability_RPC_EXPAND_VOLUME)
	if err != nil {
		return false, fmt.Errorf("asking whether volumes are expanded at their nodes: %w", err)
	}
	return node, nil
}

// detectClasses tells whether there can be VolumeAttributesClasses to follow.
// Without it nothing is asked for that needs the right to read them.
func (r *Reconciler) detectClasses(m ctrl.Manager) (bool, error) {
	if !r.options.Modify || !r.driver.Info().Has(csipb.ControllerServiceCapability_RPC_MODIFY_VOLUME) {
		return false, nil
	}
	kind := schema.GroupKind{Group: storagev1.GroupName, Kind: "VolumeAttributesClass"}
	_, err := m.GetRESTMapper().RESTMapping(kind, storagev1.SchemeGroupVersion.Version)
	if meta.IsNoMatchError(err) {
		m.GetLogger().Info("The API server has no VolumeAttributesClasses in version v1: volumes are not modified")
		without := *r.options
		without.Modify, r.options = false, &without
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("asking the API server whether it has VolumeAttributesClasses: %w", err)
	}
	return true, nil
}
