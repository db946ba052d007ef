package schedule

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/api/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/kube"
)

const (
	// maxReportedTargets is how many targets are listed in the status, which must fit into one
	// object.
	maxReportedTargets = 500
	// maxMessageLength is the maximal length of a target's message in the status.
	maxMessageLength = 300
)

// errConflict is returned if the schedule has changed since it was read.
var errConflict = errors.New("the schedule has changed in the meantime")

// patchStatus writes the status if it differs. It fails if the schedule has changed since it
// was read.
func (r *Reconciler) patchStatus(ctx context.Context, s *schedule, status *scheduleStatus) error {
	status.ObservedGeneration = s.Generation
	if equality.Semantic.DeepEqual(status, &s.Status) {
		return nil
	}
	before := s.object.DeepCopyObject().(client.Object) //nolint:forcetypeassert // It is a copy of an object.
	r.kind.setStatus(s.object, status)
	err := r.client.Status().Patch(ctx, s.object, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
	switch {
	case kube.IsStale(err):
		return fmt.Errorf("%w: %w", errConflict, err)
	case err != nil:
		err = fmt.Errorf("writing the status: %w", err)
		r.events.WarnIfDenied(s.object, kube.ReasonDenied, err)
		return err
	}
	*s = *r.kind.fromObject(s.object)
	return nil
}

// invalidStatus returns the status of a schedule with an invalid spec. The recorded runs are
// kept.
func invalidStatus(s *state, problem error, now time.Time) *scheduleStatus {
	status := s.schedule.Status.clone()
	status.NextRunTime = nil
	setCondition(&status, s.schedule.Generation, now, condition{v1alpha1.Ready, metav1.ConditionFalse, v1alpha1.Invalid, problem.Error() + "; " + s.schedule.terms.nothingDone()})
	setCondition(&status, s.schedule.Generation, now, condition{v1alpha1.Available, metav1.ConditionFalse, v1alpha1.Invalid, s.schedule.terms.nothingDone()})
	return &status
}

// rejections are the requests that the API server just rejected.
type rejections struct {
	targets   map[string]string // targets whose child was rejected, and why
	deletions string            // describes the rejected deletions of children
}

// newStatus returns the status after a step.
func newStatus(s *state, rejected rejections, now time.Time) *scheduleStatus {
	status := planRuns(s.schedule, s.calendar, now)
	states := s.targetStates(rejected.targets, now)
	completeRun(&status, states, now)
	status.Targets = targetStatuses(states, &status)
	generation := s.schedule.Generation
	clocks := clockMessage(&status, s, clockReadings{now, s.serverTime})
	setCondition(&status, generation, now, readyCondition(s, states, rejected.deletions, clocks))
	setCondition(&status, generation, now, availableCondition(s, states))
	setCondition(&status, generation, now, runningCondition(s.schedule.terms, &status, states))
	if clocks != "" {
		setCondition(&status, generation, now, condition{v1alpha1.ClocksDiffer, metav1.ConditionTrue, v1alpha1.ClocksDiffer, clocks})
	}
	return &status
}

// clockMessage returns the message about differing clocks if a child is kept because of
// them, or "". A message that is in the status is not changed: its times would change all the
// time.
func clockMessage(status *scheduleStatus, s *state, at clockReadings) string {
	if !s.withheld(at) {
		meta.RemoveStatusCondition(&status.Conditions, v1alpha1.ClocksDiffer)
		return ""
	}
	if reported := meta.FindStatusCondition(status.Conditions, v1alpha1.ClocksDiffer); reported != nil {
		return reported.Message
	}
	return at.message(s.schedule.terms)
}

// completeRun records that no target of a run is pending any more, and completes the trigger
// once all children are ready.
func completeRun(status *scheduleStatus, states []*targetState, now time.Time) {
	if status.Run == nil || slices.ContainsFunc(states, (*targetState).isPending) {
		return
	}
	if status.Run.CompletionTime == nil {
		status.Run.CompletionTime = metaTime(now)
	}
	if triggerSatisfied(status, states) {
		status.LastTrigger = status.Run.Trigger
	}
}

// targetStatuses returns the statuses of the targets, sorted by name. If there are too many,
// failing targets are preferred.
func targetStatuses(states []*targetState, status *scheduleStatus) []targetStatus {
	reported := slices.Clone(states)
	if len(reported) > maxReportedTargets {
		slices.SortStableFunc(reported, func(a, b *targetState) int { return cmp.Compare(a.rank(), b.rank()) })
		reported = reported[:maxReportedTargets]
	}
	slices.SortFunc(reported, func(a, b *targetState) int { return cmp.Compare(a.target.Name, b.target.Name) })
	var all []targetStatus
	for _, p := range reported {
		all = append(all, p.status(status))
	}
	return all
}

func (p *targetState) rank() int {
	switch {
	case p.isFailing():
		return 0
	case p.reason != "":
		return 1
	}
	return 2
}

// status returns the status of a target.
func (p *targetState) status(status *scheduleStatus) targetStatus {
	c := targetStatus{
		Name: p.target.Name, UID: p.target.UID, LastRunTime: p.recorded.LastRunTime, Reason: p.reason, Message: kube.Truncate(p.message, maxMessageLength),
	}
	if status.Run != nil && p.findChild(status.Run) != nil {
		c.LastRunTime = &status.Run.Time
	}
	if len(p.children) > 0 {
		c.LastChild = p.children[0].name
	}
	if newest := newestReady(p.children); newest != nil {
		c.LastReadyChild, c.LastReadyTime = newest.name, metaTime(newest.takenAt)
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

func setCondition(status *scheduleStatus, generation int64, now time.Time, c condition) {
	kube.SetCondition(&status.Conditions, generation, metav1.Condition{
		Type: c.conditionType, Status: c.status, Reason: c.reason, Message: c.message, LastTransitionTime: *metaTime(now),
	})
}

// readyCondition reports whether the schedule works as specified.
func readyCondition(s *state, states []*targetState, deletions, clocks string) condition {
	terms, failing := s.schedule.terms, failingTargets(states)
	switch {
	case s.schedule.Spec.Suspend:
		return condition{v1alpha1.Ready, metav1.ConditionTrue, v1alpha1.Suspended, "suspended by spec.suspend: " + terms.nothingDone()}
	case len(failing) > 0:
		first := failing[0]
		return condition{v1alpha1.Ready, metav1.ConditionFalse, terms.targetsFailing, fmt.Sprintf(
			"%d of %d %s are failing, %s; %s %s: %s: %s", len(failing), len(states), terms.targets, terms.others(len(states)-len(failing)), terms.target, first.target.Name, first.reason, kube.Truncate(first.message, maxMessageLength))}
	case clocks != "":
		return condition{v1alpha1.Ready, metav1.ConditionFalse, v1alpha1.ClocksDiffer, clocks}
	case deletions != "":
		return condition{v1alpha1.Ready, metav1.ConditionFalse, v1alpha1.RemovalFailing, deletions}
	case len(states) == 0:
		return condition{v1alpha1.Ready, metav1.ConditionTrue, terms.noTargets, terms.selector + " selects no " + terms.target}
	}
	return condition{v1alpha1.Ready, metav1.ConditionTrue, v1alpha1.Scheduled, fmt.Sprintf("%d %s are selected", len(states), terms.targets)}
}

// failingTargets returns the targets that a user should look into.
func failingTargets(states []*targetState) (failing []*targetState) {
	for _, p := range states {
		if p.isFailing() {
			failing = append(failing, p)
		}
	}
	return failing
}

// others says what becomes of the targets that are not failing.
func (t *terms) others(n int) string {
	if n == 0 {
		return "so there are no others"
	}
	return fmt.Sprintf("which does not affect the other %d", n)
}

// availableCondition reports whether the schedule does anything for anybody. It stays True
// while only some targets are failing, which may be for ever.
func availableCondition(s *state, states []*targetState) condition {
	terms, failing := s.schedule.terms, len(failingTargets(states))
	fine := len(states) - failing
	switch {
	case s.schedule.Spec.Suspend:
		return condition{v1alpha1.Available, metav1.ConditionTrue, v1alpha1.Suspended, "suspended by spec.suspend"}
	case len(states) == 0:
		return condition{v1alpha1.Available, metav1.ConditionTrue, terms.noTargets, terms.selector + " selects no " + terms.target}
	case fine == 0:
		return condition{v1alpha1.Available, metav1.ConditionFalse, terms.targetsFailing, fmt.Sprintf("all %d %s are failing: see condition Ready", failing, terms.targets)}
	case failing > 0:
		return condition{v1alpha1.Available, metav1.ConditionTrue, v1alpha1.Scheduled, fmt.Sprintf("%d of %d %s are in order; the others are failing: see condition Ready", fine, len(states), terms.targets)}
	}
	return condition{v1alpha1.Available, metav1.ConditionTrue, v1alpha1.Scheduled, fmt.Sprintf("all %d %s are in order", fine, terms.targets)}
}

// runningCondition reports whether targets are waiting.
func runningCondition(terms *terms, status *scheduleStatus, states []*targetState) condition {
	open := 0
	for _, p := range states {
		if p.isPending() {
			open++
		}
	}
	if status.Run == nil || status.Run.CompletionTime != nil {
		return condition{v1alpha1.Running, metav1.ConditionFalse, v1alpha1.Idle, "no " + terms.target + " is waiting for its " + terms.child}
	}
	return condition{v1alpha1.Running, metav1.ConditionTrue, v1alpha1.Waiting, fmt.Sprintf(
		"in the run of %s, %d of %d %s are waiting for their %s", formatTime(status.Run.Time.Time), open, len(states), terms.targets, terms.child)}
}
