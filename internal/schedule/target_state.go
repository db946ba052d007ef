package schedule

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-io/holdfast/api/v1alpha1"
)

// A targetState is the state of a target in the current run.
type targetState struct {
	target   *target
	children []*childState // newest first
	recorded targetStatus
	// reason is why the target has no ready child of the run; empty if it has one.
	reason, message string
	// skipped is set if no child can be created now, and childFailed if the child of the run
	// reports an error.
	skipped, childFailed bool
	// retryTime is when creating a rejected child is retried; nil if none was rejected.
	// retryDue is set once that time has passed.
	retryTime *metav1.Time
	retryDue  bool
	// until is when the reason may change without any event; zero for never.
	until time.Time
}

// isPending reports whether the target may still get its child in this run.
func (p *targetState) isPending() bool {
	return p.reason == v1alpha1.Waiting || p.reason == v1alpha1.Blocked || p.reason == v1alpha1.CreateFailed
}

// isFailing reports whether a user should look into the target.
func (p *targetState) isFailing() bool {
	switch p.reason {
	case v1alpha1.CreateFailed, v1alpha1.Late, v1alpha1.Blocked:
		return true
	}
	return p.childFailed
}

// isExempt reports whether no child of the target can be expected in this run.
func (p *targetState) isExempt() bool {
	return p.skipped || p.reason == v1alpha1.Terminating || p.reason == v1alpha1.NextRun
}

// blocksTrigger reports whether the trigger cannot complete because of this target.
func (p *targetState) blocksTrigger() bool { return p.reason != "" && !p.isExempt() }

// triggerSatisfied reports whether the trigger of a run is complete and not yet recorded as
// such.
func triggerSatisfied(status *scheduleStatus, states []*targetState) bool {
	return status.Run != nil && status.Run.Trigger != "" && status.Run.Trigger != status.LastTrigger && !slices.ContainsFunc(states, (*targetState).blocksTrigger)
}

// A runState is a run with what is needed to evaluate its targets.
type runState struct {
	*v1alpha1.Run
	schedule *schedule
	deadline time.Time // zero for none
	at       clockReadings
}

// currentRun returns the current run of a schedule.
func currentRun(s *schedule, at clockReadings) runState {
	r := runState{Run: s.Status.Run, schedule: s, at: at}
	if deadline := s.Spec.StartingDeadline; deadline != nil && r.Run != nil && r.Trigger == "" {
		r.deadline = r.Time.Add(jitterOffset(s) + deadline.Duration)
	}
	return r
}

// evaluate sets the reason why a target has no ready child of the run.
func (r *runState) evaluate(p *targetState) {
	if r.Run == nil || r.evaluateTaken(p) {
		return
	}
	switch {
	case p.target.Deleting:
		p.reason, p.message = v1alpha1.Terminating, "the "+r.schedule.terms.target+" is being deleted"
	case p.target.SkipReason != "":
		p.skipped, p.reason, p.message = true, p.target.SkipReason, p.target.SkipMessage
	case r.CompletionTime != nil && p.recorded.Reason != v1alpha1.Late:
		p.reason, p.message = v1alpha1.NextRun, "the "+r.schedule.terms.target+" is included from the next run on"
	case r.CompletionTime != nil, !r.deadline.IsZero() && r.at.earlier().After(r.deadline):
		p.reason, p.message = v1alpha1.Late, fmt.Sprintf("its turn in the run of %s did not come within spec.startingDeadline", formatTime(r.Time.Time))
	default:
		r.evaluateWaiting(p)
		p.until = minNonZero(p.until, r.at.toOwn(r.deadline, r.at.earlier()))
	}
}

// evaluateTaken evaluates a target of which the run has taken a child. It returns false if
// the run has not.
func (r *runState) evaluateTaken(p *targetState) bool {
	s, terms := p.findChild(r.Run), r.schedule.terms
	switch {
	case s == nil && (p.recorded.LastRunTime == nil || !p.recorded.LastRunTime.Equal(&r.Time)):
		return false
	case s == nil || s.deleting:
		r.evaluateRemoved(p)
	case s.ready:
	case s.errorMessage != "":
		p.childFailed, p.reason, p.message = true, terms.childFailed, fmt.Sprintf("%s %s: %s", terms.childKind, s.name, s.errorMessage)
	default:
		p.reason, p.message = v1alpha1.InProgress, fmt.Sprintf("%s %s is not ready yet", terms.childKind, s.name)
	}
	return true
}

// evaluateRemoved evaluates a target whose child of the run is deleted, or not in the cache
// yet. Retention deletes it only if there is a newer one.
func (r *runState) evaluateRemoved(p *targetState) {
	if newest := newestReady(p.children); newest != nil && !newest.takenAt.Before(r.StartTime.Time) {
		return
	}
	p.reason, p.message = v1alpha1.Removed, "the "+r.schedule.terms.childKind+" of the last run was deleted; the next run creates another one"
}

// findChild returns the target's child of a run, or nil.
func (p *targetState) findChild(run *v1alpha1.Run) *childState {
	for _, s := range p.children {
		if s.run == formatTime(run.Time.Time) && s.runID == run.ID {
			return s
		}
	}
	return nil
}

// evaluateWaiting evaluates a target that is waiting for its child.
func (r *runState) evaluateWaiting(p *targetState) {
	for _, s := range p.children {
		now := r.at.serverTime()
		if until := s.createdAt.Add(unreadyTimeout); !r.schedule.Spec.AllowConcurrent && s.isInProgress() && until.After(now) {
			p.reason, p.until = v1alpha1.Blocked, r.at.toOwn(until, now)
			p.message = fmt.Sprintf("%s %s of an earlier run is not ready yet", r.schedule.terms.childKind, s.name)
			if s.errorMessage != "" {
				p.message += ": " + s.errorMessage
			}
			return
		}
	}
	if p.recorded.Reason == v1alpha1.CreateFailed && p.recorded.RetryTime != nil {
		p.setCreateFailed(p.recorded.Message, p.recorded.RetryTime, r.at.own)
		return
	}
	p.reason, p.message = v1alpha1.Waiting, "the "+r.schedule.terms.target+" waits for its turn: see spec.maxConcurrent"
}

// setCreateFailed sets that the API server rejected the child, and when to retry. A time
// far in the future was set with a clock that was ahead, and does not count.
func (p *targetState) setCreateFailed(why string, until *metav1.Time, now time.Time) {
	p.reason, p.message, p.retryTime = v1alpha1.CreateFailed, why, until
	if p.retryDue = !until.After(now) || until.After(now.Add(maxClockSkew)); !p.retryDue {
		p.until = until.Time
	}
}

// isQueued reports whether a child of the target is taken when its turn comes.
func (p *targetState) isQueued() bool { return p.reason == v1alpha1.Waiting || p.retryDue }

// queueOrder returns the queued targets. Targets without a rejection are first, because a
// rejection may take long. Among them, the target with the oldest child is first.
func queueOrder(states []*targetState) []*targetState {
	var waiting []*targetState
	for _, p := range states {
		if p.isQueued() {
			waiting = append(waiting, p)
		}
	}
	slices.SortStableFunc(waiting, func(a, b *targetState) int {
		return cmp.Or(a.lastRejected().Compare(b.lastRejected()), a.lastCreated().Compare(b.lastCreated()), cmp.Compare(a.target.Name, b.target.Name))
	})
	return waiting
}

func (p *targetState) lastRejected() time.Time {
	if p.retryTime == nil {
		return time.Time{}
	}
	return p.retryTime.Time
}

func (p *targetState) lastCreated() time.Time {
	var last time.Time
	for _, s := range p.children {
		if !s.fromFuture {
			last = maxTime(last, s.createdAt)
		}
	}
	return last
}

// slotTimeout is how long an unready child counts against maxConcurrent: one that hangs
// must not block the others forever.
const slotTimeout = time.Hour

// freeSlots returns how many more children may be in progress now, and when that number
// changes without any event.
func freeSlots(all []*childState, most int32, at clockReadings) (free int, next time.Time) {
	free = int(most)
	now := at.serverTime()
	for _, s := range all {
		if !s.isInProgress() || s.errorMessage != "" {
			continue
		}
		if until := s.createdAt.Add(slotTimeout); until.After(now) {
			free--
			next = minNonZero(next, until)
		}
	}
	return max(free, 0), at.toOwn(next, now)
}
