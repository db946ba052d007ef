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

// Setup adds the controller to a manager, for a driver that passes
// CheckCapabilities.
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
		return fmt.Errorf("creating a client for pods: %w", err)
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

// CheckCapabilities returns an error if the driver has no capability that this
// controller uses.
func CheckCapabilities(ctx context.Context, driver *csi.Driver) error {
	info := driver.Info()
	if !info.HasService(csipb.PluginCapability_Service_CONTROLLER_SERVICE) {
		return fmt.Errorf("driver %s cannot be used: it does not announce CONTROLLER_SERVICE; is this the socket of its controller?", info.Name)
	}
	if info.Has(csipb.ControllerServiceCapability_RPC_EXPAND_VOLUME) || info.Has(csipb.ControllerServiceCapability_RPC_MODIFY_VOLUME) {
		return nil
	}
	node, err := expandsOnNodes(ctx, driver)
	if err == nil && !node {
		err = fmt.Errorf("driver %s has nothing to resize: it announces neither EXPAND_VOLUME, for its controller or its nodes, nor MODIFY_VOLUME; "+
			"remove this program from its deployment", info.Name)
	}
	return err
}

// expandsOnNodes reports whether only the nodes expand volumes. It calls the
// node service only if the controller does not expand volumes.
func expandsOnNodes(ctx context.Context, driver *csi.Driver) (bool, error) {
	if driver.Info().Has(csipb.ControllerServiceCapability_RPC_EXPAND_VOLUME) {
		return false, nil
	}
	node, err := driver.HasNodeCapability(ctx, csipb.NodeServiceCapability_RPC_EXPAND_VOLUME)
	if err != nil {
		return false, fmt.Errorf("reading the capabilities of the driver's node service: %w", err)
	}
	return node, nil
}

// detectClasses reports whether VolumeAttributesClasses can be applied. If not,
// the controller does not read them, and does not need permission to.
func (r *Reconciler) detectClasses(m ctrl.Manager) (bool, error) {
	if !r.options.Modify || !r.driver.Info().Has(csipb.ControllerServiceCapability_RPC_MODIFY_VOLUME) {
		return false, nil
	}
	kind := schema.GroupKind{Group: storagev1.GroupName, Kind: "VolumeAttributesClass"}
	_, err := m.GetRESTMapper().RESTMapping(kind, storagev1.SchemeGroupVersion.Version)
	if meta.IsNoMatchError(err) {
		m.GetLogger().Info("The API server does not serve VolumeAttributesClass v1: volumes are not modified")
		without := *r.options
		without.Modify, r.options = false, &without
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("checking whether the API server serves VolumeAttributesClass: %w", err)
	}
	return true, nil
}
