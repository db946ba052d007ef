package retention

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/kube"
)

// reportInterval is the shortest pause between two writes of a policy's status that change
// only its numbers.
const reportInterval = 5 * time.Second

// report writes the status of a policy. It returns after which time to look again if nothing
// changes.
func (r *Reconciler) report(ctx context.Context, p *v1alpha1.CheckpointPolicy, next plan) (time.Duration, error) {
	status := statusOf(p, next, r.wallClock())
	if equality.Semantic.DeepEqual(status, &p.Status) {
		return maxRequeueInterval, nil
	}
	now := r.wallClock()
	if pause := r.memory.lastReport(p.Name).Add(reportInterval).Sub(now); pause > 0 && isOnlyNumbers(&p.Status, status) {
		return pause, nil
	}
	if next.rejected != nil {
		r.events.Warning(p, reasonDeletionFailed, kube.Message(next.rejected))
	}
	err := kube.ChangeStatus(ctx, r.client, p, func(p *v1alpha1.CheckpointPolicy) { p.Status = *status })
	if err != nil {
		return 0, err
	}
	r.memory.reportedAt(p.Name, now)
	return maxRequeueInterval, nil
}

// isOnlyNumbers reports whether two statuses have the same conditions, of the same
// generation.
func isOnlyNumbers(before, after *v1alpha1.CheckpointPolicyStatus) bool {
	return before.ObservedGeneration == after.ObservedGeneration && equality.Semantic.DeepEqual(before.Conditions, after.Conditions)
}

// statusOf returns the new status of a policy.
func statusOf(p *v1alpha1.CheckpointPolicy, next plan, now time.Time) *v1alpha1.CheckpointPolicyStatus {
	status := p.Status.DeepCopy()
	status.ObservedGeneration = p.Generation
	status.ReadyCheckpoints, status.Workloads = int32(next.kept+len(next.expired)), int32(next.workloads)
	status.NextExpirationTime = nil
	if !next.next.IsZero() {
		at := metav1.NewTime(next.next.Truncate(time.Second)) // as the API has it
		status.NextExpirationTime = &at
	}
	if p.Spec.Retention == nil {
		meta.RemoveStatusCondition(&status.Conditions, v1alpha1.ConditionRetentionApplied)
		return status
	}
	applied := conditionOf(next)
	applied.LastTransitionTime = metav1.NewTime(now)
	kube.SetCondition(&status.Conditions, p.Generation, applied)
	return status
}

// conditionOf returns whether all that is expired is gone, or else why not.
func conditionOf(next plan) metav1.Condition {
	c := metav1.Condition{Type: v1alpha1.ConditionRetentionApplied, Status: metav1.ConditionFalse}
	switch {
	case next.rejected != nil:
		c.Reason, c.Message = v1alpha1.ReasonDeletionRejected, next.rejected.Error()
	case len(next.undeleted) > 0:
		first := next.undeleted[0]
		ready := meta.FindStatusCondition(first.Status.Conditions, v1alpha1.ConditionReady)
		c.Reason = v1alpha1.ReasonDataNotDeleted
		c.Message = fmt.Sprintf("the data of %d deleted Checkpoints cannot be deleted; %s/%s: %s", len(next.undeleted), first.Namespace, first.Name, ready.Message)
	default:
		c.Status, c.Reason, c.Message = metav1.ConditionTrue, v1alpha1.ReasonRetentionApplied, "no expired Checkpoint is left"
	}
	return c
}
