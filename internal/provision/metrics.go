package provision

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics count what becomes of claims. Names and labels are those of the
// csi-provisioner whose role this is, for its dashboards; class is the
// StorageClass and source the kind that the volume is filled from, "" for none.
type Metrics struct {
	made, failed *prometheus.CounterVec
	took         *prometheus.HistogramVec
}

// NewMetrics makes and registers them, once in a process. Buckets are those of
// the csi-provisioner and more: a restore takes minutes.
func NewMetrics(to prometheus.Registerer) *Metrics {
	labels := []string{"class", "source"}
	m := &Metrics{
		made: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "controller_persistentvolumeclaim_provision_total",
			Help: "Number of volumes that were provisioned, by StorageClass and kind of source.",
		}, labels),
		failed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "controller_persistentvolumeclaim_provision_failed_total",
			Help: "Number of attempts to provision a volume that failed, by StorageClass and kind of source.",
		}, labels),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "controller_persistentvolumeclaim_provision_duration_seconds",
			Help:    "Time of the attempts to provision a volume that succeeded, by StorageClass and kind of source.",
			Buckets: slices.Concat(prometheus.DefBuckets, []float64{15, 30, 60, 120, 300, 600}),
		}, labels),
	}
	to.MustRegister(m.made, m.failed, m.took)
	return m
}

// labels are what a claim, or the intent that has survived it, is counted under.
func (s *seen) labels() []string {
	switch {
	case s.intent != nil:
		return s.intent.labels()
	case s.claim != nil:
		from, _ := sourceOf(s.claim)
		return []string{className(s.claim), kindOf(from)}
	default:
		return []string{"", ""}
	}
}

func (i *intent) labels() []string { return []string{i.volume.Spec.StorageClassName, kindOf(i.source)} }

func kindOf(s *source) string {
	if s == nil {
		return ""
	}
	return s.Kind
}

// success counts a volume that was made by an attempt that has begun then.
func (m *Metrics) success(i *intent, began time.Time) {
	if m == nil {
		return
	}
	m.made.WithLabelValues(i.labels()...).Inc()
	m.took.WithLabelValues(i.labels()...).Observe(time.Since(began).Seconds())
}

// failure counts an attempt that has failed.
func (m *Metrics) failure(s seen) {
	if m == nil {
		return
	}
	m.failed.WithLabelValues(s.labels()...).Inc()
}
