package schedule

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/api/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/kube"
)

const (
	// maxReportedClaims is how many claims are listed in the status, which must fit into one
	// object.
	maxReportedClaims = 500
	// maxMessageLength is the maximal length of a claim's message in the status.
	maxMessageLength = 300
)

// errConflict is returned if the schedule has changed since it was read.
var errConflict = errors.New("the schedule has changed in the meantime")

// patchStatus writes the status if it differs. It fails if the schedule has changed since it
// was read.
func (r *Reconciler) patchStatus(ctx context.Context, s *v1alpha1.SnapshotSchedule, status *v1alpha1.SnapshotScheduleStatus) error {
	status.ObservedGeneration = s.Generation
	if equality.Semantic.DeepEqual(status, &s.Status) {
		return nil
	}
	before := s.DeepCopy()
	s.Status = *status
	err := r.client.Status().Patch(ctx, s, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
	switch {
	case apierrors.IsConflict(err), apierrors.IsNotFound(err):
		return fmt.Errorf("%w: %w", errConflict, err)
	case err != nil:
		return fmt.Errorf("writing the status: %w", err)
	}
	return nil
}

// invalidStatus returns the status of a schedule with an invalid spec. The recorded runs are
// kept.
func invalidStatus(s *state, problem error, now time.Time) *v1alpha1.SnapshotScheduleStatus {
	status := s.schedule.Status.DeepCopy()
	status.NextRunTime = nil
	setCondition(status, s.schedule.Generation, now, condition{v1alpha1.Ready, metav1.ConditionFalse, v1alpha1.Invalid, problem.Error() + "; no snapshot is taken or deleted"})
	return status
}

// rejections are the requests that the API server just rejected.
type rejections struct {
	claims    map[string]string // claims whose snapshot was rejected, and why
	deletions string            // describes the rejected deletions of snapshots
}

// newStatus returns the status after a step.
func newStatus(s *state, rejected rejections, now time.Time) *v1alpha1.SnapshotScheduleStatus {
	status := planRuns(s.schedule, s.calendar, now)
	states := s.claimStates(rejected.claims, now)
	completeRun(&status, states, now)
	status.Claims = claimStatuses(states, &status)
	generation := s.schedule.Generation
	clocks := clockMessage(&status, s, clockReadings{now, s.serverTime})
	setCondition(&status, generation, now, readyCondition(s, states, rejected.deletions, clocks))
	setCondition(&status, generation, now, runningCondition(&status, states))
	if clocks != "" {
		setCondition(&status, generation, now, condition{v1alpha1.ClocksDiffer, metav1.ConditionTrue, v1alpha1.ClocksDiffer, clocks})
	}
	return &status
}

// clockMessage returns the message about differing clocks if a snapshot is kept because of
// them, or "". A message that is in the status is not changed: its times would change all the
// time.
func clockMessage(status *v1alpha1.SnapshotScheduleStatus, s *state, at clockReadings) string {
	if !s.withheld(at) {
		meta.RemoveStatusCondition(&status.Conditions, v1alpha1.ClocksDiffer)
		return ""
	}
	if reported := meta.FindStatusCondition(status.Conditions, v1alpha1.ClocksDiffer); reported != nil {
		return reported.Message
	}
	return at.message()
}

// completeRun records that no claim of a run is pending any more, and completes the trigger
// once all snapshots are ready.
func completeRun(status *v1alpha1.SnapshotScheduleStatus, states []*claimState, now time.Time) {
	if status.Run == nil || slices.ContainsFunc(states, (*claimState).isPending) {
		return
	}
	if status.Run.CompletionTime == nil {
		status.Run.CompletionTime = metaTime(now)
	}
	if triggerSatisfied(status, states) {
		status.LastTrigger = status.Run.Trigger
	}
}

// claimStatuses returns the statuses of the claims, sorted by name. If there are too many,
// failing claims are preferred.
func claimStatuses(states []*claimState, status *v1alpha1.SnapshotScheduleStatus) []v1alpha1.ClaimStatus {
	reported := slices.Clone(states)
	if len(reported) > maxReportedClaims {
		slices.SortStableFunc(reported, func(a, b *claimState) int { return cmp.Compare(a.rank(), b.rank()) })
		reported = reported[:maxReportedClaims]
	}
	slices.SortFunc(reported, func(a, b *claimState) int { return cmp.Compare(a.claim.Name, b.claim.Name) })
	var all []v1alpha1.ClaimStatus
	for _, p := range reported {
		all = append(all, p.status(status))
	}
	return all
}

func (p *claimState) rank() int {
	switch {
	case p.isFailing():
		return 0
	case p.reason != "":
		return 1
	}
	return 2
}

// status returns the status of a claim.
func (p *claimState) status(status *v1alpha1.SnapshotScheduleStatus) v1alpha1.ClaimStatus {
	c := v1alpha1.ClaimStatus{
		Name: p.claim.Name, UID: p.claim.UID, LastRunTime: p.recorded.LastRunTime, Reason: p.reason, Message: kube.Truncate(p.message, maxMessageLength),
	}
	if status.Run != nil && p.findSnapshot(status.Run) != nil {
		c.LastRunTime = &status.Run.Time
	}
	if len(p.snapshots) > 0 {
		c.LastSnapshot = p.snapshots[0].name
	}
	if newest := newestReady(p.snapshots); newest != nil {
		c.LastReadySnapshot, c.LastReadyTime = newest.name, metaTime(newest.takenAt)
	}
	if p.reason == v1alpha1.CreateFailed {
		c.RetryTime = p.retryTime
	}
	return c
}

// A condition is a condition of the status.
type condition struct {
	conditionType   string
	status          metav1.ConditionStatus
	reason, message string
}

func setCondition(status *v1alpha1.SnapshotScheduleStatus, generation int64, now time.Time, c condition) {
	meta.SetStatusCondition(&status.Conditions, metav1.Condition{
		Type: c.conditionType, Status: c.status, Reason: c.reason, Message: c.message, ObservedGeneration: generation, LastTransitionTime: *metaTime(now),
	})
}

// readyCondition reports whether the schedule works as specified.
func readyCondition(s *state, states []*claimState, deletions, clocks string) condition {
	var failing []*claimState
	for _, p := range states {
		if p.isFailing() {
			failing = append(failing, p)
		}
	}
	switch {
	case s.schedule.Spec.Suspend:
		return condition{v1alpha1.Ready, metav1.ConditionTrue, v1alpha1.Suspended, "suspended by spec.suspend: no snapshot is taken or deleted"}
	case len(failing) > 0:
		first := failing[0]
		return condition{v1alpha1.Ready, metav1.ConditionFalse, v1alpha1.ClaimsFailing, fmt.Sprintf(
			"%d of %d claims are failing, which does not affect the others; claim %s: %s: %s", len(failing), len(states), first.claim.Name, first.reason, kube.Truncate(first.message, maxMessageLength))}
	case clocks != "":
		return condition{v1alpha1.Ready, metav1.ConditionFalse, v1alpha1.ClocksDiffer, clocks}
	case deletions != "":
		return condition{v1alpha1.Ready, metav1.ConditionFalse, v1alpha1.RemovalFailing, deletions}
	case len(states) == 0:
		return condition{v1alpha1.Ready, metav1.ConditionTrue, v1alpha1.NoClaims, "spec.claimSelector selects no claim"}
	}
	return condition{v1alpha1.Ready, metav1.ConditionTrue, v1alpha1.Scheduled, fmt.Sprintf("%d claims are selected", len(states))}
}

// runningCondition reports whether claims are waiting.
func runningCondition(status *v1alpha1.SnapshotScheduleStatus, states []*claimState) condition {
	open := 0
	for _, p := range states {
		if p.isPending() {
			open++
		}
	}
	if status.Run == nil || status.Run.CompletionTime != nil {
		return condition{v1alpha1.Running, metav1.ConditionFalse, v1alpha1.Idle, "no claim is waiting for its snapshot"}
	}
	return condition{v1alpha1.Running, metav1.ConditionTrue, v1alpha1.Waiting, fmt.Sprintf(
		"in the run of %s, %d of %d claims are waiting for their snapshot", formatTime(status.Run.Time.Time), open, len(states))}
}
