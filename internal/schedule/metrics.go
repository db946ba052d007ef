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
		Help: "Runs of SnapshotSchedules, by whether they were begun or missed.",
	}, []string{"result"})
	snapshotsTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "holdfast_snapshotschedule_snapshots_total",
		Help: "VolumeSnapshots of SnapshotSchedules that were created, were refused by the API server, or were removed because they are not to be kept.",
	}, []string{"result"})
	lastReadyAge = prometheus.NewDesc("holdfast_snapshotschedule_last_ready_age_seconds",
		"Age of the newest snapshot of a claim by a schedule that is ready to use; if there is none, how long claim and schedule have been there together.",
		[]string{"namespace", "snapshotschedule", "persistentvolumeclaim"}, nil)
)

// collector measures when it is asked and keeps nothing.
type collector struct {
	*Reconciler
	cache cache.Cache
	to    prometheus.Registerer
}

// Start registers the metrics for as long as ctx lives: the next manager of the
// same process has a cache of its own to measure in.
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

// Describe names the metrics.
func (c *collector) Describe(to chan<- *prometheus.Desc) { to <- lastReadyAge }

// Collect measures. There is nothing to tell before the cache is filled.
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
