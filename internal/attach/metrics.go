package attach

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	storagev1 "k8s.io/api/storage/v1"
	"sigs.k8s.io/controller-runtime/pkg/cache"
)

var (
	waiting = prometheus.NewDesc("holdfast_attach_waiting",
		"VolumeAttachments that are to be attached, or detached, and are not yet.", []string{"operation"}, nil)
	oldest = prometheus.NewDesc("holdfast_attach_oldest_seconds",
		"How long the oldest of them has waited; 0 if there is none.", []string{"operation"}, nil)
	dangling = prometheus.NewDesc("holdfast_attach_dangling_publications",
		"Volumes that the driver says are published on a node and no VolumeAttachment tells of, at the last survey.", nil, nil)

	timeouts = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "holdfast_attach_timeouts_total",
		Help: "VolumeAttachments that were not attached within --volume-attachment-timeout.",
	})
)

// collector counts when it is asked and keeps nothing.
type collector struct {
	*Reconciler
	cache  cache.Cache
	survey *survey
}

// Describe names the metrics.
func (c *collector) Describe(to chan<- *prometheus.Desc) {
	to <- waiting
	to <- oldest
	to <- dangling
}

// Collect counts. There is nothing to tell before the cache is filled.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if !c.cache.WaitForCacheSync(ctx) {
		return
	}
	all, err := c.all(ctx)
	if err != nil {
		return
	}
	for operation, q := range queues(all, c.options, time.Now()) {
		to <- prometheus.MustNewConstMetric(waiting, prometheus.GaugeValue, float64(q.waiting), operation)
		to <- prometheus.MustNewConstMetric(oldest, prometheus.GaugeValue, q.oldest.Seconds(), operation)
	}
	to <- prometheus.MustNewConstMetric(dangling, prometheus.GaugeValue, float64(c.survey.dangling.Load()))
}

// A queue is what is to be attached, or detached.
type queue struct {
	waiting int
	oldest  time.Duration
}

func (q *queue) add(since time.Duration) {
	q.waiting++
	q.oldest = max(q.oldest, since)
}

// queues measures the two.
func queues(all []storagev1.VolumeAttachment, o *Options, now time.Time) map[string]*queue {
	attach, detach := &queue{}, &queue{}
	for i := range all {
		a := &all[i]
		s := seen{attachment: a}
		switch {
		case a.DeletionTimestamp == nil && !a.Status.Attached:
			attach.add(now.Sub(a.CreationTimestamp.Time))
		case a.DeletionTimestamp != nil && s.held(o):
			detach.add(now.Sub(a.DeletionTimestamp.Time))
		}
	}
	return map[string]*queue{"attach": attach, "detach": detach}
}
