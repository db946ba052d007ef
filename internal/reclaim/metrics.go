package reclaim

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
)

// Metrics count deletions of volumes. Names and labels are those of upstream's
// csi-provisioner, for its dashboards. The label class is the StorageClass.
type Metrics struct {
	deleted, failed *prometheus.CounterVec
	duration        *prometheus.HistogramVec
}

// NewMetrics creates and registers the metrics, once in a process. The buckets
// are those of upstream's csi-provisioner and some more, because a driver may
// take minutes.
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

// success counts a deleted volume and the duration of the attempt.
func (m *Metrics) success(volume *corev1.PersistentVolume, start time.Time) {
	if m == nil {
		return
	}
	m.deleted.WithLabelValues(volume.Spec.StorageClassName).Inc()
	m.duration.WithLabelValues(volume.Spec.StorageClassName).Observe(time.Since(start).Seconds())
}

// failure counts a failed attempt.
func (m *Metrics) failure(volume *corev1.PersistentVolume) {
	if m == nil {
		return
	}
	m.failed.WithLabelValues(volume.Spec.StorageClassName).Inc()
}
