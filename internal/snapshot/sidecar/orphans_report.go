package sidecar

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/holdfast-io/holdfast/internal/secretref"
)

// reasonOrphans is the reason of the event about orphaned snapshots.
const reasonOrphans = "OrphanedSnapshots"

// noTokens are the tokens for listing all snapshots, where no content is known.
var noTokens = secretref.Tokens{}

// report logs each orphan once and emits an event about all of them. The event is on one of
// the driver's classes: administrators look there, and csi-snapshotter can read classes.
func (s *orphanScanner) report(ctx context.Context, r *scanResult) {
	now := map[string]bool{}
	for _, o := range r.orphans {
		now[o.handle] = true
		if !s.logged[o.handle] {
			klog.FromContext(ctx).Info("Found an orphaned snapshot: no VolumeSnapshotContent refers to it",
				"snapshotHandle", o.handle, "volumeHandle", o.volume, "created", o.created, "bytes", o.bytes, "namedBySnapshotter", o.namedBySnapshotter)
		}
	}
	s.logged = now
	classes, err := s.classes(ctx)
	if err != nil || len(classes) == 0 || len(r.orphans) == 0 {
		return // The metric and the log are enough.
	}
	first := slices.MinFunc(classes, func(a, b snapshotv1.VolumeSnapshotClass) int { return strings.Compare(a.Name, b.Name) })
	total := countByNamer(r.orphans)
	s.events.Warning(&first, reasonOrphans, fmt.Sprintf(
		"driver %s has %d snapshots older than %s that no VolumeSnapshotContent refers to (%d of them named by a csi-snapshotter); the first is %s. They are not deleted automatically: check whether they are still needed, then delete them at the storage. The log of csi-snapshotter has all handles",
		first.Driver, len(r.orphans), s.options.Age, total[true].count, r.orphans[0].handle))
}

// A total is the number and the size of some orphans.
type total struct {
	count int
	bytes int64
}

// countByNamer sums up orphans by whether a csi-snapshotter named them.
func countByNamer(all []orphan) map[bool]total {
	shares := map[bool]total{true: {}, false: {}}
	for _, o := range all {
		s := shares[o.namedBySnapshotter]
		shares[o.namedBySnapshotter] = total{s.count + 1, s.bytes + o.bytes}
	}
	return shares
}

var (
	orphansDesc = prometheus.NewDesc("holdfast_snapshot_orphans",
		"Snapshots at the driver that no VolumeSnapshotContent referred to at the last scan, by who named them.", []string{"driver_name", "named_by"}, nil)
	orphanBytesDesc = prometheus.NewDesc("holdfast_snapshot_orphans_bytes",
		"Size of the volumes that would be restored from orphaned snapshots, as far as the driver reports it.", []string{"driver_name", "named_by"}, nil)
	lastScanDesc = prometheus.NewDesc("holdfast_snapshot_orphans_checked_timestamp_seconds",
		"When the last scan for orphaned snapshots ended.", []string{"driver_name"}, nil)
)

// registerMetrics registers the metrics. It replaces those of an earlier manager in this
// process.
func (s *orphanScanner) registerMetrics() error {
	metrics.Registry.Unregister(s)
	if err := metrics.Registry.Register(s); err != nil {
		return fmt.Errorf("registering metrics: %w", err)
	}
	return nil
}

// Describe implements prometheus.Collector.
func (s *orphanScanner) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{orphansDesc, orphanBytesDesc, lastScanDesc} {
		to <- d
	}
}

// Collect implements prometheus.Collector. It reports the result of the last scan; nothing
// before the first scan, or if another replica is the leader.
func (s *orphanScanner) Collect(to chan<- prometheus.Metric) {
	r := s.result.Load()
	if r == nil {
		return
	}
	driver := s.driver.Info().Name
	for named, s := range countByNamer(r.orphans) {
		by := "unknown"
		if named {
			by = "csi-snapshotter"
		}
		to <- prometheus.MustNewConstMetric(orphansDesc, prometheus.GaugeValue, float64(s.count), driver, by)
		to <- prometheus.MustNewConstMetric(orphanBytesDesc, prometheus.GaugeValue, float64(s.bytes), driver, by)
	}
	to <- prometheus.MustNewConstMetric(lastScanDesc, prometheus.GaugeValue, float64(r.at.UnixNano())/float64(time.Second), driver)
}
