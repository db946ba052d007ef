package orphan

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/kube"
)

// reported is how many orphans the status lists.
const reported = 20

var (
	objects = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "checkpoint_agent_orphaned_objects", Help: "Archives and incomplete uploads in stores that belong to no Checkpoint, as of the last look.",
	})
	bytes = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "checkpoint_agent_orphaned_bytes", Help: "Size of the archives in stores that belong to no Checkpoint, as of the last look.",
	})
)

// RegisterMetrics registers the metrics. It replaces those of an earlier manager in this
// process.
func RegisterMetrics() error {
	for _, c := range []prometheus.Collector{objects, bytes} {
		metrics.Registry.Unregister(c)
		if err := metrics.Registry.Register(c); err != nil {
			return fmt.Errorf("registering metrics: %w", err)
		}
	}
	return nil
}

// report writes what was found into the status of the CheckpointNode, if it has changed.
// problem is why stores could not be listed.
func (f *Finder) report(ctx context.Context, orphans []found, problem error) error {
	sortLargestFirst(orphans)
	var size int64
	for _, o := range orphans {
		size += o.Size
	}
	objects.Set(float64(len(orphans)))
	bytes.Set(float64(size))
	condition := conditionOf(orphans, size, problem)
	return retry.OnError(retry.DefaultRetry, kube.IsConflict, func() error {
		var n *v1alpha1.CheckpointNode
		if err := kube.GetIfExists(ctx, f.APIReader, client.ObjectKey{Name: f.Node}, &n); err != nil || n == nil {
			return err // The next look reports it, if the agent has published nothing yet.
		}
		return kube.ChangeStatus(ctx, f.Client, n, func(n *v1alpha1.CheckpointNode) {
			n.Status.Orphans = describe(orphans)
			kube.SetCondition(&n.Status.Conditions, n.Generation, condition)
		})
	})
}

func describe(orphans []found) []v1alpha1.OrphanedData {
	var all []v1alpha1.OrphanedData
	for _, o := range orphans[:min(reported, len(orphans))] {
		data := v1alpha1.OrphanedData{Location: o.location, Bytes: o.Size, Incomplete: o.Incomplete}
		if !o.Modified.IsZero() {
			at := metav1.NewTime(o.Modified.Truncate(time.Second)) // as the API has it
			data.ModifiedTime = &at
		}
		all = append(all, data)
	}
	return all
}

// conditionOf returns whether there are orphans, and what to do about them.
func conditionOf(orphans []found, size int64, problem error) metav1.Condition {
	c := metav1.Condition{Type: v1alpha1.ConditionOrphanedData, Status: metav1.ConditionFalse, Reason: "NoneFound", Message: "all data in the stores belong to Checkpoints"}
	switch {
	case len(orphans) > 0:
		c.Status, c.Reason = metav1.ConditionTrue, "OrphansFound"
		c.Message = fmt.Sprintf("%d objects with %s belong to no Checkpoint of this cluster, the largest is %s: delete those of status.orphans, unless another cluster uses the same store",
			len(orphans), resource.NewQuantity(size, resource.BinarySI), orphans[0].location)
	case problem != nil:
		c.Status, c.Reason, c.Message = metav1.ConditionUnknown, "StoreNotListed", "stores could not be listed"
	}
	if problem != nil {
		c.Message += ". " + problem.Error()
	}
	return c
}
