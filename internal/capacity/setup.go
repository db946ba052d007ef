package capacity

import (
	"context"
	"fmt"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/go-logr/logr"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/topology"
)

// objectsByPair is the index of objects by their pair.
const objectsByPair = "capacity.pair"

// CacheOptions reduce the manager's cache to the objects of this process, and nodes
// to their metadata.
func CacheOptions(o *Options, into *cache.Options) {
	if !o.Enabled {
		return
	}
	topology.CacheOptions(into)
	into.ByObject[&storagev1.CSIStorageCapacity{}] = cache.ByObject{
		Namespaces: map[string]cache.Config{o.Namespace: {LabelSelector: labels.SelectorFromSet(o.labels())}},
	}
}

// Setup adds the controller to a manager, if it is enabled. The manager's cache
// must have CacheOptions.
func Setup(ctx context.Context, m ctrl.Manager, driver *csi.Driver, events *kube.Events, o *Options) error {
	if !o.Enabled {
		return nil
	}
	r := &Reconciler{
		client: m.GetClient(), apiReader: m.GetAPIReader(), options: o, events: events, log: m.GetLogger(), now: time.Now,
		hasGetCapacity: func() bool { return driver.Info().Has(csipb.ControllerServiceCapability_RPC_GET_CAPACITY) },
		getCapacity:    driver.GetCapacity,
		segments:       &segmentCache{client: m.GetClient(), driver: o.Driver, fixed: onlySegment(driver.Info(), o)},
	}
	if !r.hasGetCapacity() {
		r.log.Info("No capacity is published in spite of --enable-capacity: the driver does not announce GET_CAPACITY", "driver", o.Driver)
	}
	var err error
	if r.owner, err = findOwner(ctx, r.apiReader, o); err != nil {
		return err
	}
	if r.writer, err = newWriter(m, o); err != nil {
		return err
	}
	err = m.GetFieldIndexer().IndexField(ctx, &storagev1.CSIStorageCapacity{}, objectsByPair, indexByPair)
	if err != nil {
		return fmt.Errorf("indexing CSIStorageCapacity objects: %w", err)
	}
	if err := m.Add(&collector{count: func() (counts, bool) { return r.countIfSynced(ctx, m.GetCache()) }, to: metrics.Registry}); err != nil {
		return fmt.Errorf("adding the metrics of CSIStorageCapacity objects: %w", err)
	}
	return r.build(m)
}

// onlySegment is the only segment of this process: that of its node, or the whole
// cluster for a driver without topology. It is nil if the segments are those of all
// nodes.
func onlySegment(driver csi.Info, o *Options) topology.Segment {
	topological := o.Topology && driver.HasService(csipb.PluginCapability_Service_VOLUME_ACCESSIBILITY_CONSTRAINTS)
	if o.Segment == nil && !topological {
		return topology.Segment{}
	}
	return o.Segment
}

func indexByPair(o client.Object) []string {
	object, ok := o.(*storagev1.CSIStorageCapacity)
	if !ok {
		return nil
	}
	return []string{pairOf(object).String()}
}

// newWriter returns the manager's client, unless flags set a limit.
func newWriter(m ctrl.Manager, o *Options) (client.Writer, error) {
	if o.QPS <= 0 {
		return m.GetClient(), nil
	}
	limited := rest.CopyConfig(m.GetConfig())
	limited.QPS, limited.Burst = o.QPS, max(o.Burst, 1)
	writer, err := client.New(limited, client.Options{HTTPClient: m.GetHTTPClient(), Scheme: m.GetScheme(), Mapper: m.GetRESTMapper()})
	if err != nil {
		return nil, fmt.Errorf("creating the client for CSIStorageCapacity objects: %w", err)
	}
	return writer, nil
}

func (r *Reconciler) build(m ctrl.Manager) error {
	b := builder.TypedControllerManagedBy[pair](m).Named("capacity").WithOptions(controller.TypedOptions[pair]{
		MaxConcurrentReconciles: r.options.Workers,
		RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[pair](r.options.RetryStart, r.options.maxRetry()),
		LogConstructor: func(p *pair) logr.Logger {
			log := m.GetLogger().WithValues("controller", "capacity")
			if p != nil {
				log = log.WithValues("class", p.class, "segment", p.segment)
			}
			return log
		},
	})
	for _, w := range r.watches() {
		b.Watches(w.object, w.handler, builder.WithPredicates(w.predicate))
	}
	return b.Complete(r)
}
