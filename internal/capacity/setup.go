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
	"github.com/holdfast-io/holdfast/internal/topology"
)

// objectsByPair indexes objects by what they are about.
const objectsByPair = "capacity.pair"

// CacheOptions narrow what the manager's cache holds of the objects that only
// this package reads, and of nodes.
func CacheOptions(o *Options, into *cache.Options) {
	if !o.Enabled {
		return
	}
	topology.CacheOptions(into)
	into.ByObject[&storagev1.CSIStorageCapacity{}] = cache.ByObject{
		Namespaces: map[string]cache.Config{o.Namespace: {LabelSelector: labels.SelectorFromSet(o.labels())}},
	}
}

// Setup adds the controller, if it is enabled, to a manager whose cache has
// CacheOptions.
func Setup(ctx context.Context, m ctrl.Manager, driver *csi.Driver, o *Options) error {
	if !o.Enabled {
		return nil
	}
	r := &Reconciler{
		client: m.GetClient(), apiReader: m.GetAPIReader(), options: o, log: m.GetLogger(), now: time.Now,
		hasGetCapacity: func() bool { return driver.Info().Has(csipb.ControllerServiceCapability_RPC_GET_CAPACITY) },
		getCapacity:    driver.GetCapacity,
		segments:       &segmentCache{client: m.GetClient(), driver: o.Driver, fixed: onlySegment(driver.Info(), o)},
	}
	if !r.hasGetCapacity() {
		r.log.Info("The driver does not announce GET_CAPACITY, so none is published in spite of --enable-capacity", "driver", o.Driver)
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
		return fmt.Errorf("indexing capacities: %w", err)
	}
	if err := m.Add(&collector{count: func() (counts, bool) { return r.countIfSynced(ctx, m.GetCache()) }, to: metrics.Registry}); err != nil {
		return fmt.Errorf("adding the metrics of capacities: %w", err)
	}
	return r.build(m)
}

// onlySegment is the one segment that there is for this process, nil for those
// of all nodes: its node's, or for a driver without topology the whole cluster.
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

// newWriter is the manager's own client unless flags ask for a limit.
func newWriter(m ctrl.Manager, o *Options) (client.Writer, error) {
	if o.QPS <= 0 {
		return m.GetClient(), nil
	}
	limited := rest.CopyConfig(m.GetConfig())
	limited.QPS, limited.Burst = o.QPS, max(o.Burst, 1)
	writer, err := client.New(limited, client.Options{HTTPClient: m.GetHTTPClient(), Scheme: m.GetScheme(), Mapper: m.GetRESTMapper()})
	if err != nil {
		return nil, fmt.Errorf("making a client for capacities: %w", err)
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
