package provision

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/provision/pending"
	"github.com/holdfast-io/holdfast/internal/provision/source"
)

// Metrics count attempts to provision. Names and labels are those of csi-provisioner, so
// that its dashboards keep working. Label class is the StorageClass, and label source is
// the kind of the volume's source, "" for none.
type Metrics struct {
	succeeded, failed *prometheus.CounterVec
	duration          *prometheus.HistogramVec
}

// NewMetrics registers the metrics, once in a process. The buckets are those of
// csi-provisioner and larger ones, because a restore takes minutes.
func NewMetrics(to prometheus.Registerer) *Metrics {
	labels := []string{"class", "source"}
	m := &Metrics{
		succeeded: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "controller_persistentvolumeclaim_provision_total",
			Help: "Number of volumes that were provisioned, by StorageClass and kind of source.",
		}, labels),
		failed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "controller_persistentvolumeclaim_provision_failed_total",
			Help: "Number of attempts to provision a volume that failed, by StorageClass and kind of source.",
		}, labels),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "controller_persistentvolumeclaim_provision_duration_seconds",
			Help:    "Time of the attempts to provision a volume that succeeded, by StorageClass and kind of source.",
			Buckets: slices.Concat(prometheus.DefBuckets, []float64{15, 30, 60, 120, 300, 600}),
		}, labels),
	}
	to.MustRegister(m.succeeded, m.failed, m.duration)
	return m
}

// metricLabels returns the labels for the claim, or for the operation of a deleted claim.
func (s *state) metricLabels() []string {
	switch {
	case s.operation != nil:
		return metricLabels(s.operation)
	case s.claim != nil:
		from, _ := source.Of(s.claim)
		return []string{kube.ClaimClass(s.claim), kindOf(from)}
	default:
		return []string{"", ""}
	}
}

// metricLabels returns the labels for an operation.
func metricLabels(op *pending.Operation) []string {
	return []string{op.Volume.Spec.StorageClassName, kindOf(op.Source)}
}

// kindOf returns the kind of a source, "" for none.
func kindOf(s *source.Source) string {
	if s == nil {
		return ""
	}
	return s.Kind
}

// recordSuccess counts an attempt that has succeeded.
func (m *Metrics) recordSuccess(op *pending.Operation, started time.Time) {
	if m == nil {
		return
	}
	m.succeeded.WithLabelValues(metricLabels(op)...).Inc()
	m.duration.WithLabelValues(metricLabels(op)...).Observe(time.Since(started).Seconds())
}

// recordFailure counts an attempt that has failed.
func (m *Metrics) recordFailure(s state) {
	if m == nil {
		return
	}
	m.failed.WithLabelValues(s.metricLabels()...).Inc()
}
