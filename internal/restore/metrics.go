package restore

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
)

// total counts restores that have ended, by the name that dashboards of checkpoint-operator
// have. That has the metric too, with the same help, which is what a registry demands of both
// in one process.
var total = prometheus.NewCounterVec(prometheus.CounterOpts{
	Name: "checkpoint_operator_restore_total", Help: "Containers that were restored (success), or could not be (failed).",
}, []string{"status"})

var succeeded, failed = total.WithLabelValues("success"), total.WithLabelValues("failed")

// registerMetrics registers the metrics. It replaces those of an earlier manager in this
// process.
func registerMetrics() error {
	metrics.Registry.Unregister(total)
	if err := metrics.Registry.Register(total); err != nil {
		return fmt.Errorf("registering metrics: %w", err)
	}
	return nil
}
