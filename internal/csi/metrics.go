package csi

import (
	"context"
	"sync"
	"time"

	"github.com/kubernetes-csi/csi-lib-utils/metrics"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
)

// callMetrics measures calls. csi_sidecar_operations_seconds comes from
// csi-lib-utils, so that its labels and buckets are those of the upstream sidecars
// and their dashboards.
type callMetrics struct {
	metrics.CSIMetricsManager
	mu       sync.RWMutex // for the driver name, which the manager does not protect against concurrent calls
	inFlight *prometheus.GaugeVec
	own      *prometheus.Registry
}

func newCallMetrics(p limiters) *callMetrics {
	m := &callMetrics{
		// The process has one start time, and may connect to several drivers.
		CSIMetricsManager: metrics.NewCSIMetricsManagerWithOptions("", metrics.WithProcessStartTime(false)),
		inFlight: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "holdfast_csi_operations_in_flight",
			Help: "Calls to the CSI driver that are in flight.",
		}, []string{"method_name"}),
		own: prometheus.NewRegistry(),
	}
	m.own.MustRegister(m.inFlight, p)
	return m
}

func (m *callMetrics) RecordMetrics(method string, err error, took time.Duration) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	m.CSIMetricsManager.RecordMetrics(method, err, took)
}

func (m *callMetrics) SetDriverName(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.CSIMetricsManager.SetDriverName(name)
}

// countInFlight is the interceptor that counts calls in flight.
func (m *callMetrics) countInFlight(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption) error { //nolint:revive // The signature is gRPC's.
	gauge := m.inFlight.WithLabelValues(method)
	gauge.Inc()
	defer gauge.Dec()
	return next(ctx, method, req, reply, cc, opts...)
}

// Gatherer returns the metrics of the driver's calls, to be merged into the metrics
// endpoint of the process:
// csi_sidecar_operations_seconds{driver_name,method_name,grpc_status_code},
// holdfast_csi_operations_in_flight{method_name} and, while there is a limit,
// holdfast_csi_operations_limit{method_name}.
func (d *Driver) Gatherer() prometheus.Gatherer {
	return prometheus.Gatherers{d.metrics.GetRegistry().Gatherer(), d.metrics.own}
}
