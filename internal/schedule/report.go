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
	// reported is how many claims are in the status, which must fit into one
	// object.
	reported = 500
	// words is how much of what went wrong with a claim is in the status.
	words = 300
)

// errStale says that somebody has changed the schedule since it was seen.
var errStale = errors.New("the schedule has changed meanwhile")

// write writes a status on the condition that nobody has changed the schedule
// since it was seen. Nothing is written if nothing changes.
func (r *Reconciler) write(ctx context.Context, s *v1alpha1.SnapshotSchedule, status *v1alpha1.SnapshotScheduleStatus) error {
	status.ObservedGeneration = s.Generation
	if equality.Semantic.DeepEqual(status, &s.Status) {
		return nil
	}
	before := s.DeepCopy()
	s.Status = *status
	err := r.client.Status().Patch(ctx, s, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
	switch {
	case apierrors.IsConflict(err), apierrors.IsNotFound(err):
		return fmt.Errorf("%w: %w", errStale, err)
	case err != nil:
		return fmt.Errorf("writing the status: %w", err)
	}
	return nil
}

// invalid is the status of a schedule with which nothing can be done. What is on
// record stays.
func invalid(s *seen, problem error, now time.Time) *v1alpha1.SnapshotScheduleStatus {
	is := s.schedule.Status.DeepCopy()
	is.NextRunTime = nil
	set(is, s.schedule.Generation, now, condition{v1alpha1.Ready, metav1.ConditionFalse, v1alpha1.Invalid, problem.Error() + "; nothing is taken or removed"})
	return is
}

// setbacks are what the API server has just refused.
type setbacks struct {
	claims map[string]string // those of which it takes no snapshot, and why
	stuck  string            // tells of snapshots that it does not let go
}

// settle is the status after a step.
func settle(s *seen, refused setbacks, now time.Time) *v1alpha1.SnapshotScheduleStatus {
	is := plan(s.schedule, s.calendar, now)
	parts := s.parts(refused.claims, now)
	complete(&is, parts, now)
	is.Claims = claimsOf(parts, &is)
	generation := s.schedule.Generation
	differ := differing(&is, s, clocks{now, s.server})
	set(&is, generation, now, readiness(s, parts, refused.stuck, differ))
	set(&is, generation, now, running(&is, parts))
	if differ != "" {
		set(&is, generation, now, condition{v1alpha1.ClocksDiffer, metav1.ConditionTrue, v1alpha1.ClocksDiffer, differ})
	}
	return &is
}

// differing tells that the clocks do not agree if something stays for that; else it is
// empty. What was told stays as it was: the times go on.
func differing(is *v1alpha1.SnapshotScheduleStatus, s *seen, at clocks) string {
	if !s.withheld(at) {
		meta.RemoveStatusCondition(&is.Conditions, v1alpha1.ClocksDiffer)
		return ""
	}
	if told := meta.FindStatusCondition(is.Conditions, v1alpha1.ClocksDiffer); told != nil {
		return told.Message
	}
	return at.problem()
}

// complete notes that a run has no claim left that may still get its snapshot,
// and that its trigger is answered when all of them are ready.
func complete(is *v1alpha1.SnapshotScheduleStatus, parts []*part, now time.Time) {
	if is.Run == nil || slices.ContainsFunc(parts, (*part).open) {
		return
	}
	if is.Run.CompletionTime == nil {
		is.Run.CompletionTime = stamped(now)
	}
	if answers(is, parts) {
		is.LastTrigger = is.Run.Trigger
	}
}

// claimsOf tells about the claims by name, about those in trouble first if not
// all can be told about.
func claimsOf(parts []*part, is *v1alpha1.SnapshotScheduleStatus) []v1alpha1.ClaimStatus {
	told := slices.Clone(parts)
	if len(told) > reported {
		slices.SortStableFunc(told, func(a, b *part) int { return cmp.Compare(a.rank(), b.rank()) })
		told = told[:reported]
	}
	slices.SortFunc(told, func(a, b *part) int { return cmp.Compare(a.claim.Name, b.claim.Name) })
	var all []v1alpha1.ClaimStatus
	for _, p := range told {
		all = append(all, p.status(is))
	}
	return all
}

func (p *part) rank() int {
	switch {
	case p.troubled():
		return 0
	case p.reason != "":
		return 1
	}
	return 2
}

// status is what is told about a claim.
func (p *part) status(is *v1alpha1.SnapshotScheduleStatus) v1alpha1.ClaimStatus {
	c := v1alpha1.ClaimStatus{
		Name: p.claim.Name, UID: p.claim.UID, LastRunTime: p.was.LastRunTime, Reason: p.reason, Message: kube.Truncate(p.message, words),
	}
	if is.Run != nil && p.find(is.Run) != nil {
		c.LastRunTime = &is.Run.Time
	}
	if len(p.shots) > 0 {
		c.LastSnapshot = p.shots[0].name
	}
	if good := newestReady(p.shots); good != nil {
		c.LastReadySnapshot, c.LastReadyTime = good.name, stamped(good.taken)
	}
	if p.reason == v1alpha1.CreateFailed {
		c.RetryTime = p.refused
	}
	return c
}

// A condition is what is to be told by one.
type condition struct {
	kind            string
	status          metav1.ConditionStatus
	reason, message string
}

func set(is *v1alpha1.SnapshotScheduleStatus, generation int64, now time.Time, c condition) {
	meta.SetStatusCondition(&is.Conditions, metav1.Condition{
		Type: c.kind, Status: c.status, Reason: c.reason, Message: c.message, ObservedGeneration: generation, LastTransitionTime: *stamped(now),
	})
}

// readiness tells whether the schedule works as its spec says.
func readiness(s *seen, parts []*part, stuck, differ string) condition {
	var troubled []*part
	for _, p := range parts {
		if p.troubled() {
			troubled = append(troubled, p)
		}
	}
	switch {
	case s.schedule.Spec.Suspend:
		return condition{v1alpha1.Ready, metav1.ConditionTrue, v1alpha1.Suspended, "suspended by spec.suspend: nothing is taken or removed"}
	case len(troubled) > 0:
		first := troubled[0]
		return condition{v1alpha1.Ready, metav1.ConditionFalse, v1alpha1.ClaimsFailing, fmt.Sprintf(
			"%d of %d claims have trouble, the others do not suffer from it; claim %s: %s: %s", len(troubled), len(parts), first.claim.Name, first.reason, kube.Truncate(first.message, words))}
	case differ != "":
		return condition{v1alpha1.Ready, metav1.ConditionFalse, v1alpha1.ClocksDiffer, differ}
	case stuck != "":
		return condition{v1alpha1.Ready, metav1.ConditionFalse, v1alpha1.RemovalFailing, stuck}
	case len(parts) == 0:
		return condition{v1alpha1.Ready, metav1.ConditionTrue, v1alpha1.NoClaims, "spec.claimSelector selects no claim"}
	}
	return condition{v1alpha1.Ready, metav1.ConditionTrue, v1alpha1.Scheduled, fmt.Sprintf("%d claims are selected", len(parts))}
}

// running tells whether claims wait.
func running(is *v1alpha1.SnapshotScheduleStatus, parts []*part) condition {
	open := 0
	for _, p := range parts {
		if p.open() {
			open++
		}
	}
	if is.Run == nil || is.Run.CompletionTime != nil {
		return condition{v1alpha1.Running, metav1.ConditionFalse, v1alpha1.Idle, "no claim waits for its snapshot"}
	}
	return condition{v1alpha1.Running, metav1.ConditionTrue, v1alpha1.Waiting, fmt.Sprintf(
		"in the run of %s %d of %d claims wait for their snapshot", stamp(is.Run.Time.Time), open, len(parts))}
}
