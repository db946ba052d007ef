package schedule

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/api/v1alpha1"
)

var (
	runsTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "holdfast_snapshotschedule_runs_total",
		Help: "Runs of SnapshotSchedules that started (begun) or were skipped (missed).",
	}, []string{"result"})
	snapshotsTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "holdfast_snapshotschedule_snapshots_total",
		Help: "VolumeSnapshots of SnapshotSchedules that were created, rejected by the API server (refused), or deleted after they expired (removed).",
	}, []string{"result"})
	lastReadyAge = prometheus.NewDesc("holdfast_snapshotschedule_last_ready_age_seconds",
		"Age of a claim's newest snapshot by a schedule that is ready to use; if there is none, the time since both claim and schedule exist.",
		[]string{"namespace", "snapshotschedule", "persistentvolumeclaim"}, nil)
)

// collector computes the metrics on each scrape.
type collector struct {
	*Reconciler
	cache cache.Cache
	to    prometheus.Registerer
}

// Start registers the metrics until ctx is done. The next manager of the same process has
// another cache.
func (c *collector) Start(ctx context.Context) error {
	all := []prometheus.Collector{c, runsTotal, snapshotsTotal}
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
func (c *collector) Describe(to chan<- *prometheus.Desc) { to <- lastReadyAge }

// Collect implements prometheus.Collector. It reports nothing before the cache is synced.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	all := &v1alpha1.SnapshotScheduleList{}
	if !c.cache.WaitForCacheSync(ctx) || c.client.List(ctx, all) != nil {
		return
	}
	now := c.now()
	for i := range all.Items {
		s, err := c.observe(ctx, client.ObjectKeyFromObject(&all.Items[i]), false)
		if s == nil || err != nil && !errors.Is(err, errInvalidSpec) {
			continue
		}
		for claim, d := range s.lastReadyAges(now) {
			to <- prometheus.MustNewConstMetric(lastReadyAge, prometheus.GaugeValue, d.Seconds(), s.schedule.Namespace, s.schedule.Name, claim)
		}
	}
}

// lastReadyAges are how old what there is to restore from is, for each claim that has a
// volume.
func (s *state) lastReadyAges(now time.Time) map[string]time.Duration {
	ages := map[string]time.Duration{}
	snapshots := byClaim(s.snapshots)
	for i := range s.claims {
		claim := &s.claims[i]
		newest := newestReady(snapshots[claim.UID])
		switch {
		case newest != nil:
			ages[claim.Name] = max(0, now.Sub(newest.takenAt))
		case claim.Status.Phase == corev1.ClaimBound:
			ages[claim.Name] = now.Sub(maxTime(claim.CreationTimestamp.Time, s.schedule.CreationTimestamp.Time))
		}
	}
	return ages
}
