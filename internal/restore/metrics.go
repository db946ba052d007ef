package restore

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
)

// total counts restores that have ended on this node. The checkpoint-operator counts those of
// all nodes, by a name of its own: a sum has each of them once.
var total = prometheus.NewCounterVec(prometheus.CounterOpts{
	Name: "checkpoint_agent_restore_total", Help: "Pods of this node that were restored (success), or could not be (failed).",
}, []string{"status"})

// phaseSeconds has the phases of restores that have succeeded.
var phaseSeconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
	Name: "checkpoint_operator_restore_phase_seconds",
	Help: "How long it took to restore a container: until its data were fetched, verified and unpacked (fetch), " +
		"and safe on the node (sync), until the kubelet started it (start), to apply its files (rootfs), " +
		"to restore its processes (criu), and from the begin to its first instruction (total).",
	Buckets: []float64{0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600},
}, []string{"phase"})

var succeeded, failed = total.WithLabelValues("success"), total.WithLabelValues("failed")

// registerMetrics registers the metrics. It replaces those of an earlier manager in this
// process.
func registerMetrics() error {
	for _, c := range []prometheus.Collector{total, phaseSeconds} {
		metrics.Registry.Unregister(c)
		if err := metrics.Registry.Register(c); err != nil {
			return fmt.Errorf("registering metrics: %w", err)
		}
	}
	for _, phase := range phaseNames {
		phaseSeconds.WithLabelValues(phase)
	}
	return nil
}
