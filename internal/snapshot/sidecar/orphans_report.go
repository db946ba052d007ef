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

// reasonOrphans is that of the event about snapshots that nobody knows.
const reasonOrphans = "OrphanedSnapshots"

// noTokens: where all snapshots are listed there is no content to name.
var noTokens = secretref.Tokens{}

// report logs each orphan once, and tells of all at a class of the driver: there
// administrators look, and a csi-snapshotter may read it.
func (s *orphanScanner) report(ctx context.Context, r *scanResult) {
	now := map[string]bool{}
	for _, o := range r.orphans {
		now[o.handle] = true
		if !s.logged[o.handle] {
			klog.FromContext(ctx).Info("Found a snapshot at the driver that no VolumeSnapshotContent knows",
				"snapshotHandle", o.handle, "volumeHandle", o.volume, "created", o.created, "bytes", o.bytes, "namedByASnapshotter", o.namedBySnapshotter)
		}
	}
	s.logged = now
	classes, err := s.classes(ctx)
	if err != nil || len(classes) == 0 || len(r.orphans) == 0 {
		return // The metric and the log tell.
	}
	first := slices.MinFunc(classes, func(a, b snapshotv1.VolumeSnapshotClass) int { return strings.Compare(a.Name, b.Name) })
	total := countByNamer(r.orphans)
	s.events.Warning(&first, reasonOrphans, fmt.Sprintf(
		"driver %s has %d snapshots older than %s that no VolumeSnapshotContent knows (%d of them named by a csi-snapshotter), the first is %s. Nothing deletes them: look whether somebody else needs them, then delete them at the storage. The log of csi-snapshotter has all handles",
		first.Driver, len(r.orphans), s.options.Age, total[true].count, r.orphans[0].handle))
}

// A total is part of the orphans.
type total struct {
	count int
	bytes int64
}

// countByNamer counts the orphans by whether a csi-snapshotter has named them.
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
		"Snapshots at the driver that no VolumeSnapshotContent knows, at the last look, by who has named them.", []string{"driver_name", "named_by"}, nil)
	orphanBytesDesc = prometheus.NewDesc("holdfast_snapshot_orphans_bytes",
		"What volumes that are restored from them would need, as far as the driver says.", []string{"driver_name", "named_by"}, nil)
	lastScanDesc = prometheus.NewDesc("holdfast_snapshot_orphans_checked_timestamp_seconds",
		"When the driver's snapshots were last compared with the VolumeSnapshotContents.", []string{"driver_name"}, nil)
)

// registerMetrics makes the metrics known, in place of those of an earlier manager of
// this process.
func (s *orphanScanner) registerMetrics() error {
	metrics.Registry.Unregister(s)
	if err := metrics.Registry.Register(s); err != nil {
		return fmt.Errorf("registering metrics: %w", err)
	}
	return nil
}

// Describe names the metrics.
func (s *orphanScanner) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{orphansDesc, orphanBytesDesc, lastScanDesc} {
		to <- d
	}
}

// Collect tells what the last look has found; nothing before the first one, and
// where another replica looks.
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
