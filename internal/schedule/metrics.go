package schedule

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/api/v1alpha1"
)

// kindMetrics are the metrics of a kind.
type kindMetrics struct {
	runs, children *prometheus.CounterVec
	// lastReadyAge has a series for each target, and omitted is how many have none.
	lastReadyAge, omitted *prometheus.Desc
}

func newMetrics(t *terms) *kindMetrics {
	return &kindMetrics{
		runs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: t.metrics + "_runs_total",
			Help: "Runs of schedules that started (begun) or were skipped (missed).",
		}, []string{"result"}),
		children: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: t.metrics + "_" + t.childrenMetric,
			Help: t.childKind + "s of schedules that were created, rejected by the API server (refused), or deleted after they expired (removed).",
		}, []string{"result"}),
		lastReadyAge: prometheus.NewDesc(t.metrics+"_last_ready_age_seconds",
			"Age of a "+t.target+"'s newest "+t.child+" by a schedule that is ready to use; if there is none, the time since both "+t.target+" and schedule exist.",
			[]string{"namespace", t.scheduleLabel, t.targetMetricLabel}, nil),
		omitted: prometheus.NewDesc(t.metrics+"_last_ready_age_omitted",
			"Ages that are not in the metrics, because a schedule or a namespace has too many. The greatest ones are.", nil, nil),
	}
}

// collector computes the metrics on each scrape.
type collector struct {
	*Reconciler
	cache cache.Cache
	to    prometheus.Registerer
}

// Start registers the metrics until ctx is done. The next manager of the same process has
// another cache.
func (c *collector) Start(ctx context.Context) error {
	all := []prometheus.Collector{c, c.metrics.runs, c.metrics.children}
	for _, m := range all {
		if err := c.to.Register(m); err != nil {
			return fmt.Errorf("registering metrics of schedules: %w", err)
		}
		defer c.to.Unregister(m)
	}
	<-ctx.Done()
	return nil
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(to chan<- *prometheus.Desc) {
	to <- c.metrics.lastReadyAge
	to <- c.metrics.omitted
}

// Collect implements prometheus.Collector. It reports nothing before the cache is synced.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	all := c.kind.newScheduleList()
	if !c.cache.WaitForCacheSync(ctx) || c.client.List(ctx, all, client.UnsafeDisableDeepCopy) != nil {
		return
	}
	now, left := c.now(), map[string]int{}
	omitted := 0
	_ = meta.EachListItem(all, func(o runtime.Object) error {
		s := o.(client.Object) //nolint:forcetypeassert // All items are objects.
		namespace := s.GetNamespace()
		if _, known := left[namespace]; !known {
			left[namespace] = maxSeriesOfNamespace
		}
		ages := c.lastReadyAges(ctx, s, now)
		shown := oldest(ages, min(maxSeriesOfSchedule, left[namespace]))
		left[namespace] -= len(shown)
		omitted += len(ages) - len(shown)
		for _, target := range shown {
			to <- prometheus.MustNewConstMetric(c.metrics.lastReadyAge, prometheus.GaugeValue, ages[target].Seconds(), namespace, s.GetName(), target)
		}
		return nil
	})
	to <- prometheus.MustNewConstMetric(c.metrics.omitted, prometheus.GaugeValue, float64(omitted))
}

// Users create schedules and targets, so that the number of series has bounds. Those with the
// greatest ages remain, which are what alerts are about.
const (
	maxSeriesOfSchedule  = 500
	maxSeriesOfNamespace = 2000
)

// oldest returns the targets with the greatest ages, at most n.
func oldest(ages map[string]time.Duration, n int) []string {
	targets := slices.SortedFunc(maps.Keys(ages), func(a, b string) int {
		return cmp.Or(cmp.Compare(ages[b], ages[a]), cmp.Compare(a, b))
	})
	return targets[:min(n, len(targets))]
}

// lastReadyAges returns the ages for a schedule. A scrape must not ask the API server: if the
// targets are not in the cache, the ages are those of its status.
func (c *collector) lastReadyAges(ctx context.Context, o client.Object, now time.Time) map[string]time.Duration {
	if c.kind.getTerms().uncachedTargets {
		return c.kind.fromObject(o).reportedAges(now)
	}
	s, err := c.observeObject(ctx, o, false)
	if s == nil || err != nil && !errors.Is(err, errInvalidSpec) {
		return nil
	}
	return s.lastReadyAges(now)
}

// reportedAges are as lastReadyAges, for the targets in the status. Those without a ready child
// count from the start of the last run, if it was to create one.
func (s *schedule) reportedAges(now time.Time) map[string]time.Duration {
	ages := map[string]time.Duration{}
	for i := range s.Status.Targets {
		t := &s.Status.Targets[i]
		switch exempt := []string{"", v1alpha1.Terminating, v1alpha1.NextRun, s.terms.skipped}; {
		case t.LastReadyTime != nil:
			ages[t.Name] = max(0, now.Sub(t.LastReadyTime.Time))
		case s.Status.Run != nil && !slices.Contains(exempt, t.Reason):
			ages[t.Name] = max(0, now.Sub(s.Status.Run.StartTime.Time))
		}
	}
	return ages
}

// lastReadyAges are how old what there is to restore from is, for each target of which a child
// can be created.
func (s *state) lastReadyAges(now time.Time) map[string]time.Duration {
	ages := map[string]time.Duration{}
	children := byTarget(s.children)
	for i := range s.targets {
		t := &s.targets[i]
		newest := newestReady(children[t.UID])
		switch {
		case newest != nil:
			ages[t.Name] = max(0, now.Sub(newest.takenAt))
		case t.SkipReason == "":
			ages[t.Name] = now.Sub(maxTime(t.CreatedAt, s.schedule.CreationTimestamp.Time))
		}
	}
	return ages
}
