package controller

import (
	"context"
	"errors"
	"fmt"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
)

var (
	inFlightDesc = prometheus.NewDesc("snapshot_controller_operations_in_flight",
		"Operations on snapshots and group snapshots that have not ended.", nil, nil)
	statesDesc = prometheus.NewDesc("holdfast_snapshots",
		"VolumeSnapshots by state.", []string{"state"}, nil)
	oldestDesc = prometheus.NewDesc("holdfast_snapshots_oldest_seconds",
		"How long the oldest VolumeSnapshot of a state has waited; 0 if there is none.", []string{"state"}, nil)
	newestTimestampDesc = prometheus.NewDesc("holdfast_snapshots_newest_timestamp_seconds",
		"When the newest snapshot that is ready to use was taken.", []string{"driver_name"}, nil)
)

// registerMetrics registers the metrics. It replaces those of an earlier manager of this
// process.
func (r *Reconciler) registerMetrics(m ctrl.Manager, groups Groups) error {
	for _, c := range []prometheus.Collector{r.durations, &collector{r, m.GetCache(), groups}} {
		metrics.Registry.Unregister(c)
		if err := metrics.Registry.Register(c); err != nil {
			return fmt.Errorf("registering metrics: %w", err)
		}
	}
	return nil
}

func (r *Reconciler) progress(s *Observed) snapshot.Progress {
	p := r.Progress(s.Snapshot)
	p.Driver = s.driver()
	return p
}

// Progress is how far a snapshot is, from its own status.
func (k *KindInfo) Progress(s *Snapshot) snapshot.Progress {
	return snapshot.Progress{Object: s.Object, Operations: k.Operations, PreProvisioned: s.PreProvisionedContent != "", Created: s.Created, Ready: s.Ready}
}

// unfinished are the operations on a snapshot that have not ended.
func unfinished(s *snapshotv1.VolumeSnapshot) []string {
	p := singleInfo.Progress((*singleKind)(nil).ReadSnapshot(s))
	return p.Unfinished()
}

// collector counts the objects in the cache when the metrics are scraped.
type collector struct {
	*Reconciler
	cache  cache.Cache
	groups Groups
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{inFlightDesc, statesDesc, oldestDesc, newestTimestampDesc} {
		to <- d
	}
}

// Collect implements prometheus.Collector. It reports nothing before the cache has
// synced.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if !c.cache.WaitForCacheSync(ctx) {
		return
	}
	t, newest := newStateCounts(c.now()), newestSnapshots{}
	err := errors.Join(
		kube.ForEach(ctx, c.cache, &snapshotv1.VolumeSnapshot{}, &snapshotv1.VolumeSnapshotList{}, t.add),
		kube.ForEach(ctx, c.cache, &snapshotv1.VolumeSnapshotContent{}, &snapshotv1.VolumeSnapshotContentList{}, func(content *snapshotv1.VolumeSnapshotContent) {
			newest.add(content, c.options)
		}))
	if err != nil {
		return
	}
	to <- prometheus.MustNewConstMetric(inFlightDesc, prometheus.GaugeValue, float64(t.operations+c.groups.UnfinishedOperations(ctx)))
	for state, n := range t.count {
		to <- prometheus.MustNewConstMetric(statesDesc, prometheus.GaugeValue, float64(n), state)
		if state != stateReady {
			to <- prometheus.MustNewConstMetric(oldestDesc, prometheus.GaugeValue, t.oldest[state].Seconds(), state)
		}
	}
	for driver, at := range newest {
		to <- prometheus.MustNewConstMetric(newestTimestampDesc, prometheus.GaugeValue, float64(at)/1e9, driver)
	}
}

// Values of the label "state".
const (
	statePending   = "pending"   // not taken yet
	stateUploading = "uploading" // taken, and not ready to use yet
	stateErrored   = "errored"   // not ready, and its status says why
	stateReady     = "ready"
	stateDeleting  = "deleting"
)

func stateOf(s *snapshotv1.VolumeSnapshot) string {
	switch {
	case s.DeletionTimestamp != nil:
		return stateDeleting
	case isReady(s):
		return stateReady
	case s.Status != nil && s.Status.Error != nil:
		return stateErrored
	case isTaken(s):
		return stateUploading
	default:
		return statePending
	}
}

// stateCounts aggregates over all snapshots.
type stateCounts struct {
	now        time.Time
	count      map[string]int
	oldest     map[string]time.Duration
	operations int
}

func newStateCounts(now time.Time) *stateCounts {
	t := &stateCounts{now: now, count: map[string]int{}, oldest: map[string]time.Duration{}}
	for _, state := range []string{statePending, stateUploading, stateErrored, stateReady, stateDeleting} {
		t.count[state] = 0
	}
	return t
}

func (t *stateCounts) add(s *snapshotv1.VolumeSnapshot) {
	since, state := s.CreationTimestamp.Time, stateOf(s)
	if state == stateDeleting {
		since = s.DeletionTimestamp.Time
	}
	t.count[state]++
	t.oldest[state] = max(t.oldest[state], t.now.Sub(since))
	if state != stateReady { // A ready snapshot has no unfinished operations.
		t.operations += len(unfinished(s))
	}
}

// newestSnapshots has, by driver, when its newest snapshot that is ready to use was
// taken, in nanoseconds since 1970.
type newestSnapshots map[string]int64

func (n newestSnapshots) add(c *snapshotv1.VolumeSnapshotContent, o *Options) {
	if c.Status != nil && ptr.Deref(c.Status.ReadyToUse, false) && o.IsSelected(c.Spec.VolumeSnapshotRef.Namespace) {
		n[c.Spec.Driver] = max(n[c.Spec.Driver], ptr.Deref(c.Status.CreationTime, 0))
	}
}
