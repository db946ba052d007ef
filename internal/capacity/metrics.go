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

// The names are those of the csi-provisioner, for its dashboards.
var (
	desiredGoal = prometheus.NewDesc("csistoragecapacities_desired_goal",
		"Number of CSIStorageCapacity objects that there should be.", nil, nil)
	desiredCurrent = prometheus.NewDesc("csistoragecapacities_desired_current",
		"Number of CSIStorageCapacity objects that there should be and are.", nil, nil)
	obsolete = prometheus.NewDesc("csistoragecapacities_obsolete",
		"Number of CSIStorageCapacity objects that there are and should not be.", nil, nil)
)

// counts is what the metrics say.
type counts struct{ goal, current, obsolete int }

// collector counts when it is asked and keeps nothing.
type collector struct {
	count func() (counts, bool)
	to    prometheus.Registerer
}

// Start registers the metrics for as long as ctx lives: the next manager of the
// same process has a cache of its own to count in.
func (c *collector) Start(ctx context.Context) error {
	if err := c.to.Register(c); err != nil {
		return fmt.Errorf("registering metrics of capacities: %w", err)
	}
	<-ctx.Done()
	c.to.Unregister(c)
	return nil
}

// NeedLeaderElection is false: standbys count too.
func (c *collector) NeedLeaderElection() bool { return false }

// Describe names the metrics.
func (c *collector) Describe(to chan<- *prometheus.Desc) {
	to <- desiredGoal
	to <- desiredCurrent
	to <- obsolete
}

// Collect counts. There is nothing to tell before the cache is filled.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	t, ok := c.count()
	if !ok {
		return
	}
	to <- prometheus.MustNewConstMetric(desiredGoal, prometheus.GaugeValue, float64(t.goal))
	to <- prometheus.MustNewConstMetric(desiredCurrent, prometheus.GaugeValue, float64(t.current))
	to <- prometheus.MustNewConstMetric(obsolete, prometheus.GaugeValue, float64(t.obsolete))
}

// countIfSynced counts what there is in the cache, and what there should be.
func (r *Reconciler) countIfSynced(ctx context.Context, c cache.Cache) (counts, bool) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if !c.WaitForCacheSync(ctx) {
		return counts{}, false
	}
	t, err := r.counts(ctx)
	if err != nil {
		r.log.Error(err, "The capacities could not be counted")
	}
	return t, err == nil
}

func (r *Reconciler) counts(ctx context.Context) (counts, error) {
	classes, err := r.classes(ctx)
	if err != nil {
		return counts{}, err
	}
	known, err := r.segments.get(ctx)
	if err != nil {
		return counts{}, err
	}
	objects := &storagev1.CSIStorageCapacityList{}
	if err := r.client.List(ctx, objects, client.InNamespace(r.options.Namespace), client.UnsafeDisableDeepCopy); err != nil {
		return counts{}, err
	}
	missing := make(map[pair]bool, len(classes)*len(known))
	for _, class := range classes {
		for segment := range known {
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
