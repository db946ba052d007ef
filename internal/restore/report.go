package restore

import (
	"context"
	"fmt"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/kube"
)

// conditionOf returns the condition Restored of a pod; nil if it has none.
func conditionOf(pod *corev1.Pod) *corev1.PodCondition {
	for i := range pod.Status.Conditions {
		if c := &pod.Status.Conditions[i]; c.Type == v1alpha1.PodRestored {
			return c
		}
	}
	return nil
}

func isRestored(pod *corev1.Pod) bool {
	c := conditionOf(pod)
	return c != nil && c.Status == corev1.ConditionTrue
}

// notYet records how far the restore is, or why it does not come forward.
func (r *Reconciler) notYet(ctx context.Context, s *state, reason, message string) error {
	return r.record(ctx, s, corev1.PodCondition{Status: corev1.ConditionFalse, Reason: reason, Message: message}, false)
}

// record sets the condition Restored. The outcome of a request is recorded together with the
// request, so that there is none without the other.
func (r *Reconciler) record(ctx context.Context, s *state, to corev1.PodCondition, outcome bool) error {
	return kube.ChangeStatus(ctx, r.client, s.pod, func(pod *corev1.Pod) {
		c := conditionOf(pod)
		if c == nil {
			pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: v1alpha1.PodRestored})
			c = &pod.Status.Conditions[len(pod.Status.Conditions)-1]
		}
		if c.Status != to.Status || c.Reason != to.Reason {
			c.LastTransitionTime = metav1.NewTime(r.now())
		}
		c.Status, c.Reason, c.Message, c.ObservedGeneration = to.Status, to.Reason, kube.Truncate(to.Message, kube.MessageLimit), pod.Generation
		if outcome {
			pod.Annotations[v1alpha1.AnnotationObservedRestoreFrom] = s.request
		}
	})
}

// fail records that the pod is not restored.
func (r *Reconciler) fail(ctx context.Context, s *state, p *problem) error {
	reason, message := p.reason, p.message
	if s.policy.OnFailure == v1alpha1.OnFailureStartFresh {
		reason, message = v1alpha1.ReasonStartedFresh, message+"; containers start without the state of the Checkpoint, as its policy says"
	}
	if err := r.record(ctx, s, corev1.PodCondition{Status: corev1.ConditionFalse, Reason: reason, Message: message}, true); err != nil {
		return err
	}
	r.count(ctx, s, failed, func(n *v1alpha1.RestoreCounts) { n.Failed++ })
	r.events.Warning(s.pod, reason, fmt.Sprintf("not restored from %s: %s", s.request, message))
	return nil
}

// succeed records that the pod is restored.
func (r *Reconciler) succeed(ctx context.Context, s *state) error {
	var parts []string
	for _, c := range s.targets() {
		parts = append(parts, c.describe())
	}
	message := fmt.Sprintf("restored from Checkpoint %s/%s: %s", s.checkpoint.Namespace, s.checkpoint.Name, strings.Join(parts, ", "))
	if err := r.record(ctx, s, corev1.PodCondition{Status: corev1.ConditionTrue, Reason: v1alpha1.ReasonRestored, Message: message}, true); err != nil {
		return err
	}
	r.count(ctx, s, succeeded, func(n *v1alpha1.RestoreCounts) { n.Succeeded++ })
	for _, c := range s.targets() {
		c.observePhases()
	}
	r.events.Normal(s.pod, v1alpha1.ReasonRestored, message)
	r.events.Normal(s.checkpoint, v1alpha1.ReasonRestored, fmt.Sprintf("restored pod %s/%s", s.pod.Namespace, s.pod.Name))
	return nil
}

// count counts an outcome, also in the status of the Checkpoint: from there the
// checkpoint-operator has its metric. The outcome is on record, so nothing is repeated for
// that: a write that fails is only logged.
func (r *Reconciler) count(ctx context.Context, s *state, in prometheus.Counter, change func(*v1alpha1.RestoreCounts)) {
	in.Inc()
	if s.checkpoint == nil {
		return
	}
	err := retry.OnError(retry.DefaultRetry, kube.IsConflict, func() error {
		var c *v1alpha1.Checkpoint
		if err := kube.GetIfExists(ctx, r.apiReader, client.ObjectKeyFromObject(s.checkpoint), &c); err != nil || c == nil || c.UID != s.checkpoint.UID {
			return err
		}
		return kube.ChangeStatus(ctx, r.client, c, func(c *v1alpha1.Checkpoint) { change(&c.Status.Restores) })
	})
	if err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Could not count a restore in the status of its Checkpoint", "checkpoint", client.ObjectKeyFromObject(s.checkpoint))
	}
}
