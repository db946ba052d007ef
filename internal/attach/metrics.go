package attach

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	storagev1 "k8s.io/api/storage/v1"
	"sigs.k8s.io/controller-runtime/pkg/cache"
)

var (
	waitingDesc = prometheus.NewDesc("holdfast_attach_waiting",
		"VolumeAttachments that are to be attached, or detached, and are not yet.", []string{"operation"}, nil)
	oldestDesc = prometheus.NewDesc("holdfast_attach_oldest_seconds",
		"How long the oldest of them has waited; 0 if there is none.", []string{"operation"}, nil)
	danglingDesc = prometheus.NewDesc("holdfast_attach_dangling_publications",
		"Volumes that the driver says are published on a node and no VolumeAttachment tells of, at the last survey.", nil, nil)

	timeouts = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "holdfast_attach_timeouts_total",
		Help: "VolumeAttachments that were not attached within --volume-attachment-timeout.",
	})
)

// collector counts when it is asked and keeps nothing.
type collector struct {
	*Reconciler
	cache cache.Cache
	drift *driftChecker
}

// Describe names the metrics.
func (c *collector) Describe(to chan<- *prometheus.Desc) {
	to <- waitingDesc
	to <- oldestDesc
	to <- danglingDesc
}

// Collect counts. There is nothing to tell before the cache is filled.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if !c.cache.WaitForCacheSync(ctx) {
		return
	}
	for _, operation := range []string{operationAttach, operationDetach} {
		queue, err := c.attachments(ctx, attachmentsByOperation, operation)
		if err != nil {
			return
		}
		to <- prometheus.MustNewConstMetric(waitingDesc, prometheus.GaugeValue, float64(len(queue)), operation)
		to <- prometheus.MustNewConstMetric(oldestDesc, prometheus.GaugeValue, longestWait(queue, time.Now()).Seconds(), operation)
	}
	to <- prometheus.MustNewConstMetric(danglingDesc, prometheus.GaugeValue, float64(c.drift.danglingCount.Load()))
}

// longestWait is how long the oldest of some that wait has waited.
func longestWait(queue []storagev1.VolumeAttachment, now time.Time) (d time.Duration) {
	for i := range queue {
		since := queue[i].CreationTimestamp.Time
		if queue[i].DeletionTimestamp != nil {
			since = queue[i].DeletionTimestamp.Time
		}
		d = max(d, now.Sub(since))
	}
	return d
}
