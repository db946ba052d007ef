package checkpoint

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
)

var (
	// restores counts restored pods, by what their agents write into the status of Checkpoints.
	restores = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "checkpoint_operator_restore_total", Help: "Pods that were restored from a Checkpoint (success), or could not be (failed).",
	}, []string{"status"})
	phaseSeconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "checkpoint_operator_checkpoint_phase_seconds",
		Help: "How long ready Checkpoints took from their creation until the containers were frozen (waiting), " +
			"from their thaw until the data were stored and verified (storing), and altogether (total).",
		Buckets: []float64{0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600},
	}, []string{"phase"})
	frozenSeconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "checkpoint_operator_checkpoint_frozen_seconds",
		Help:    "How long the containers of ready Checkpoints did not run; an upper bound where the engine does not know it exactly.",
		Buckets: []float64{0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60},
	})
	sizes = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "checkpoint_operator_checkpoint_bytes_total",
		Help: "Size of ready Checkpoints: of the files that were dumped (raw), and of what is stored (stored).",
	}, []string{"kind"})
)

// initPhases makes counters start at zero: only then their first increase is seen.
func initPhases() {
	for _, status := range []string{"success", "failed"} {
		restores.WithLabelValues(status)
	}
	for _, phase := range []string{"waiting", "storing", "total"} {
		phaseSeconds.WithLabelValues(phase)
	}
	for _, kind := range []string{"raw", "stored"} {
		sizes.WithLabelValues(kind)
	}
}

// recordPhases records how a Checkpoint became ready. The status has the times.
func recordPhases(c *v1alpha1.Checkpoint) {
	s := &c.Status
	for i := range s.Containers {
		sizes.WithLabelValues("raw").Add(float64(s.Containers[i].RawBytes))
		sizes.WithLabelValues("stored").Add(float64(s.Containers[i].StoredBytes))
	}
	frozen, err := time.ParseDuration(strings.TrimPrefix(s.Frozen, "≤"))
	if err == nil {
		frozenSeconds.Observe(frozen.Seconds())
	}
	if s.CheckpointTime == nil || s.CompletionTime == nil {
		return
	}
	created, taken, completed := c.CreationTimestamp.Time, s.CheckpointTime.Time, s.CompletionTime.Time
	observe("waiting", created, taken)
	observe("storing", taken.Add(frozen), completed)
	observe("total", created, completed)
}

// observe records a phase. The clocks of the API server and of the node may differ, and times
// in a status are in seconds: a phase that seems to be negative was short.
func observe(phase string, from, to time.Time) {
	phaseSeconds.WithLabelValues(phase).Observe(max(to.Sub(from), 0).Seconds())
}

// countRestores counts the restores that have ended with a change of a Checkpoint.
func countRestores(before, after any) {
	b, ok := before.(*v1alpha1.Checkpoint)
	a, same := after.(*v1alpha1.Checkpoint)
	if !ok || !same || b.UID != a.UID {
		return
	}
	restores.WithLabelValues("success").Add(float64(max(0, a.Status.Restores.Succeeded-b.Status.Restores.Succeeded)))
	restores.WithLabelValues("failed").Add(float64(max(0, a.Status.Restores.Failed-b.Status.Restores.Failed)))
}
