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
		"VolumeAttachments that are waiting to be attached or detached.", []string{"operation"}, nil)
	oldestDesc = prometheus.NewDesc("holdfast_attach_oldest_seconds",
		"How long the oldest of them has been waiting; 0 if there are none.", []string{"operation"}, nil)
	danglingDesc = prometheus.NewDesc("holdfast_attach_dangling_publications",
		"Volumes that the driver lists as published on a node without a VolumeAttachment, at the last drift check.", nil, nil)

	timeouts = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "holdfast_attach_timeouts_total",
		Help: "VolumeAttachments that were not attached within --volume-attachment-timeout.",
	})
)

// A collector counts objects of the cache at each scrape.
type collector struct {
	*Reconciler
	cache cache.Cache
	drift *driftChecker
}

// Describe sends the descriptions of the metrics.
func (c *collector) Describe(to chan<- *prometheus.Desc) {
	to <- waitingDesc
	to <- oldestDesc
	to <- danglingDesc
}

// Collect counts. It sends nothing before the cache has synced.
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

// longestWait returns how long the oldest of the VolumeAttachments has been
// waiting.
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
