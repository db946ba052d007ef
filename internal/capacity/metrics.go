package capacity

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	storagev1 "k8s.io/api/storage/v1"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// The names are those of the external-provisioner, for its dashboards.
var (
	desiredGoal = prometheus.NewDesc("csistoragecapacities_desired_goal",
		"Number of CSIStorageCapacity objects that should exist.", nil, nil)
	desiredCurrent = prometheus.NewDesc("csistoragecapacities_desired_current",
		"Number of CSIStorageCapacity objects that should exist and do.", nil, nil)
	obsolete = prometheus.NewDesc("csistoragecapacities_obsolete",
		"Number of CSIStorageCapacity objects that exist and should not.", nil, nil)
)

// counts are the values of the metrics.
type counts struct{ goal, current, obsolete int }

// collector counts at each scrape and stores nothing.
type collector struct {
	count func() (counts, bool)
	to    prometheus.Registerer
}

// Start registers the metrics until ctx ends: the next manager of the same process
// has a cache of its own.
func (c *collector) Start(ctx context.Context) error {
	if err := c.to.Register(c); err != nil {
		return fmt.Errorf("registering the metrics of CSIStorageCapacity objects: %w", err)
	}
	<-ctx.Done()
	c.to.Unregister(c)
	return nil
}

// NeedLeaderElection is false: standby replicas have the metrics too.
func (c *collector) NeedLeaderElection() bool { return false }

// Describe implements prometheus.Collector.
func (c *collector) Describe(to chan<- *prometheus.Desc) {
	to <- desiredGoal
	to <- desiredCurrent
	to <- obsolete
}

// Collect implements prometheus.Collector. There are no series before the cache has
// synced.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	t, ok := c.count()
	if !ok {
		return
	}
	to <- prometheus.MustNewConstMetric(desiredGoal, prometheus.GaugeValue, float64(t.goal))
	to <- prometheus.MustNewConstMetric(desiredCurrent, prometheus.GaugeValue, float64(t.current))
	to <- prometheus.MustNewConstMetric(obsolete, prometheus.GaugeValue, float64(t.obsolete))
}

// countIfSynced counts the objects in the cache, and those that should exist. It is
// false if the cache has not synced.
func (r *Reconciler) countIfSynced(ctx context.Context, c cache.Cache) (counts, bool) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if !c.WaitForCacheSync(ctx) {
		return counts{}, false
	}
	t, err := r.counts(ctx)
	if err != nil {
		r.log.Error(err, "Failed to count CSIStorageCapacity objects")
	}
	return t, err == nil
}

func (r *Reconciler) counts(ctx context.Context) (counts, error) {
	classes, err := r.classes(ctx)
	if err != nil {
		return counts{}, err
	}
	segments, err := r.segments.get(ctx)
	if err != nil {
		return counts{}, err
	}
	objects := &storagev1.CSIStorageCapacityList{}
	if err := r.client.List(ctx, objects, client.InNamespace(r.options.Namespace), client.UnsafeDisableDeepCopy); err != nil {
		return counts{}, err
	}
	missing := make(map[pair]bool, len(classes)*len(segments))
	for _, class := range classes {
		for segment := range segments {
			missing[pair{class, segment}] = true
		}
	}
	t := counts{goal: len(missing)}
	for i := range objects.Items {
		delete(missing, pairOf(&objects.Items[i]))
	}
	t.current = t.goal - len(missing)
	t.obsolete = len(objects.Items) - t.current
	return t, nil
}
