package checkpoint

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	toolscache "k8s.io/client-go/tools/cache"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
)

// total counts Checkpoints that have ended: created ones are ready.
var total = prometheus.NewCounterVec(prometheus.CounterOpts{
	Name: "checkpoint_operator_checkpoint_total", Help: "Checkpoints that became ready (created) or failed (failed).",
}, []string{"status"})

var ageDesc = prometheus.NewDesc("checkpoint_operator_checkpoint_age_seconds",
	"Age of the newest ready Checkpoint of each policy; without a policy, the label is empty.", []string{"policy"}, nil)

// registerMetrics registers the metrics. It replaces those of an earlier manager in this
// process.
func registerMetrics(m ctrl.Manager) error {
	for _, c := range []prometheus.Collector{total, restores, phaseSeconds, frozenSeconds, sizes, &ageCollector{m.GetCache(), time.Now}} {
		metrics.Registry.Unregister(c)
		if err := metrics.Registry.Register(c); err != nil {
			return fmt.Errorf("registering metrics: %w", err)
		}
	}
	for _, status := range []string{"created", "failed"} {
		total.WithLabelValues(status) // A counter that starts at zero can be used in an alert.
	}
	initPhases()
	return m.Add(manager.RunnableFunc(func(ctx context.Context) error { return countEnded(ctx, m.GetCache()) }))
}

// countEnded counts Checkpoints when they end. It runs on the leader only: with several
// replicas each is counted once.
func countEnded(ctx context.Context, c cache.Cache) error {
	informer, err := c.GetInformer(ctx, &v1alpha1.Checkpoint{})
	if err != nil {
		return fmt.Errorf("watching Checkpoints: %w", err)
	}
	handler, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{UpdateFunc: func(before, after any) {
		countRestores(before, after)
		status := ended(before, after)
		if status == "" {
			return
		}
		total.WithLabelValues(status).Inc()
		if c, ok := after.(*v1alpha1.Checkpoint); ok && status == "created" {
			recordPhases(c)
		}
	}})
	if err != nil {
		return fmt.Errorf("watching Checkpoints: %w", err)
	}
	<-ctx.Done()
	return informer.RemoveEventHandler(handler)
}

// ended returns how a Checkpoint has ended with a change; "" if it has not.
func ended(before, after any) string {
	b, ok := before.(*v1alpha1.Checkpoint)
	a, same := after.(*v1alpha1.Checkpoint)
	switch {
	case !ok || !same || (&state{checkpoint: b}).isComplete() || !(&state{checkpoint: a}).isComplete():
		return ""
	case meta.IsStatusConditionTrue(a.Status.Conditions, v1alpha1.ConditionReady):
		return "created"
	default:
		return "failed"
	}
}

// An ageCollector collects the ages of the newest ready Checkpoints.
type ageCollector struct {
	cache client.Reader
	now   func() time.Time
}

// Describe implements prometheus.Collector.
func (*ageCollector) Describe(out chan<- *prometheus.Desc) { out <- ageDesc }

// Collect implements prometheus.Collector.
func (c *ageCollector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	var all v1alpha1.CheckpointList
	if err := c.cache.List(ctx, &all, client.UnsafeDisableDeepCopy); err != nil {
		return // The cache is not filled yet.
	}
	for policy, at := range newest(all.Items) {
		out <- prometheus.MustNewConstMetric(ageDesc, prometheus.GaugeValue, c.now().Sub(at).Seconds(), policy)
	}
}

// newest returns when the newest ready Checkpoint of each policy was frozen.
func newest(all []v1alpha1.Checkpoint) map[string]time.Time {
	latest := map[string]time.Time{}
	for i := range all {
		c := &all[i]
		if c.Status.CheckpointTime == nil || !meta.IsStatusConditionTrue(c.Status.Conditions, v1alpha1.ConditionReady) {
			continue
		}
		if at := c.Status.CheckpointTime.Time; at.After(latest[c.Spec.PolicyRef]) {
			latest[c.Spec.PolicyRef] = at
		}
	}
	return latest
}
