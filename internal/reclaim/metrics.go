package reclaim

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
)

// Metrics count what becomes of volumes that nobody wants any more. Names and
// labels are those of the csi-provisioner whose role this is, for its
// dashboards; class is the StorageClass.
type Metrics struct {
	deleted, failed *prometheus.CounterVec
	duration        *prometheus.HistogramVec
}

// NewMetrics makes and registers them, once in a process. Buckets are those of
// the csi-provisioner and more: a driver may take minutes.
func NewMetrics(to prometheus.Registerer) *Metrics {
	labels := []string{"class"}
	m := &Metrics{
		deleted: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "controller_persistentvolume_delete_total",
			Help: "Number of volumes that were deleted, by StorageClass.",
		}, labels),
		failed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "controller_persistentvolume_delete_failed_total",
			Help: "Number of attempts to delete a volume that failed, by StorageClass.",
		}, labels),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "controller_persistentvolume_delete_duration_seconds",
			Help:    "Time of the attempts to delete a volume that succeeded, by StorageClass.",
			Buckets: slices.Concat(prometheus.DefBuckets, []float64{15, 30, 60, 120, 300, 600}),
		}, labels),
	}
	to.MustRegister(m.deleted, m.failed, m.duration)
	return m
}

// success counts a volume that was deleted by an attempt that has begun then.
func (m *Metrics) success(volume *corev1.PersistentVolume, start time.Time) {
	if m == nil {
		return
	}
	m.deleted.WithLabelValues(volume.Spec.StorageClassName).Inc()
	m.duration.WithLabelValues(volume.Spec.StorageClassName).Observe(time.Since(start).Seconds())
}

// failure counts an attempt that has failed.
func (m *Metrics) failure(volume *corev1.PersistentVolume) {
	if m == nil {
		return
	}
	m.failed.WithLabelValues(volume.Spec.StorageClassName).Inc()
}
