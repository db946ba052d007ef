package schedule

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-io/holdfast/api/v1alpha1"
)

// A claimState is the state of a claim in the current run.
type claimState struct {
	claim     *corev1.PersistentVolumeClaim
	snapshots []*snapshotState // newest first
	recorded  v1alpha1.ClaimStatus
	// reason is why the claim has no ready snapshot of the run; empty if it has one.
	reason, message string
	// retryTime is when creating a rejected snapshot is retried; nil if none was rejected.
	// retryDue is set once that time has passed.
	retryTime *metav1.Time
	retryDue  bool
	// until is when the reason may change without any event; zero for never.
	until time.Time
}

// isPending reports whether the claim may still get its snapshot in this run.
func (p *claimState) isPending() bool {
	return p.reason == v1alpha1.Waiting || p.reason == v1alpha1.Blocked || p.reason == v1alpha1.CreateFailed
}

// isFailing reports whether a user should look into the claim.
func (p *claimState) isFailing() bool {
	switch p.reason {
	case v1alpha1.CreateFailed, v1alpha1.SnapshotFailed, v1alpha1.Late, v1alpha1.Blocked:
		return true
	}
	return false
}

// isExempt reports whether no snapshot of the claim can be expected in this run.
func (p *claimState) isExempt() bool {
	return p.reason == v1alpha1.NotBound || p.reason == v1alpha1.Terminating || p.reason == v1alpha1.NextRun
}

// blocksTrigger reports whether the trigger cannot complete because of this claim.
func (p *claimState) blocksTrigger() bool { return p.reason != "" && !p.isExempt() }

// triggerSatisfied reports whether the trigger of a run is complete and not yet recorded as
// such.
func triggerSatisfied(status *v1alpha1.SnapshotScheduleStatus, states []*claimState) bool {
	return status.Run != nil && status.Run.Trigger != "" && status.Run.Trigger != status.LastTrigger && !slices.ContainsFunc(states, (*claimState).blocksTrigger)
}

// A runState is a run with what is needed to evaluate its claims.
type runState struct {
	*v1alpha1.Run
	deadline time.Time // zero for none
	at       clockReadings
}

// currentRun returns the current run of a schedule.
func currentRun(s *v1alpha1.SnapshotSchedule, at clockReadings) runState {
	r := runState{Run: s.Status.Run, at: at}
	if deadline := s.Spec.StartingDeadline; deadline != nil && r.Run != nil && r.Trigger == "" {
		r.deadline = r.Time.Add(jitterOffset(s) + deadline.Duration)
	}
	return r
}

// evaluate sets the reason why a claim has no ready snapshot of the run.
func (r *runState) evaluate(p *claimState) {
	if r.Run == nil || r.evaluateTaken(p) {
		return
	}
	switch {
	case p.claim.DeletionTimestamp != nil:
		p.reason, p.message = v1alpha1.Terminating, "the claim is being deleted"
	case p.claim.Status.Phase != corev1.ClaimBound:
		p.reason, p.message = v1alpha1.NotBound, fmt.Sprintf("the claim is %s: it has no volume", cmp.Or(p.claim.Status.Phase, corev1.ClaimPending))
	case r.CompletionTime != nil && p.recorded.Reason != v1alpha1.Late:
		p.reason, p.message = v1alpha1.NextRun, "the claim is included from the next run on"
	case r.CompletionTime != nil, !r.deadline.IsZero() && r.at.earlier().After(r.deadline):
		p.reason, p.message = v1alpha1.Late, fmt.Sprintf("its turn in the run of %s did not come within spec.startingDeadline", formatTime(r.Time.Time))
	default:
		r.evaluateWaiting(p)
		p.until = minNonZero(p.until, r.at.toOwn(r.deadline, r.at.earlier()))
	}
}

// evaluateTaken evaluates a claim of which the run has taken a snapshot. It returns false if
// the run has not.
func (r *runState) evaluateTaken(p *claimState) bool {
	s := p.findSnapshot(r.Run)
	switch {
	case s == nil && (p.recorded.LastRunTime == nil || !p.recorded.LastRunTime.Equal(&r.Time)):
		return false
	case s == nil || s.deleting:
		r.evaluateRemoved(p)
	case s.ready:
	case s.errorMessage != "":
		p.reason, p.message = v1alpha1.SnapshotFailed, fmt.Sprintf("VolumeSnapshot %s: %s", s.name, s.errorMessage)
	default:
		p.reason, p.message = v1alpha1.InProgress, fmt.Sprintf("VolumeSnapshot %s is not ready yet", s.name)
	}
	return true
}

// evaluateRemoved evaluates a claim whose snapshot of the run is deleted, or not in the cache
// yet. Retention deletes it only if there is a newer one.
func (r *runState) evaluateRemoved(p *claimState) {
	if newest := newestReady(p.snapshots); newest != nil && !newest.takenAt.Before(r.StartTime.Time) {
		return
	}
	p.reason, p.message = v1alpha1.Removed, "the VolumeSnapshot of the last run was deleted; the next run takes another one"
}

// findSnapshot returns the claim's snapshot of a run, or nil.
func (p *claimState) findSnapshot(run *v1alpha1.Run) *snapshotState {
	for _, s := range p.snapshots {
		if s.run == formatTime(run.Time.Time) && s.runID == run.ID {
			return s
		}
	}
	return nil
}

// evaluateWaiting evaluates a claim that is waiting for its snapshot.
func (r *runState) evaluateWaiting(p *claimState) {
	for _, s := range p.snapshots {
		now := r.at.serverTime()
		if until := s.createdAt.Add(unreadyTimeout); s.isInProgress() && until.After(now) {
			p.reason, p.until = v1alpha1.Blocked, r.at.toOwn(until, now)
			p.message = fmt.Sprintf("VolumeSnapshot %s of an earlier run is not ready yet", s.name)
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
	p.reason, p.message = v1alpha1.Waiting, "the claim waits for its turn: see spec.maxConcurrent"
}

// setCreateFailed sets that the API server rejected the snapshot, and when to retry. A time
// far in the future was set with a clock that was ahead, and does not count.
func (p *claimState) setCreateFailed(why string, until *metav1.Time, now time.Time) {
	p.reason, p.message, p.retryTime = v1alpha1.CreateFailed, why, until
	if p.retryDue = !until.After(now) || until.After(now.Add(maxClockSkew)); !p.retryDue {
		p.until = until.Time
	}
}

// isQueued reports whether a snapshot of the claim is taken when its turn comes.
func (p *claimState) isQueued() bool { return p.reason == v1alpha1.Waiting || p.retryDue }

// queueOrder returns the queued claims. Claims without a rejection are first, because a
// rejection may take long. Among them, the claim with the oldest snapshot is first.
func queueOrder(states []*claimState) []*claimState {
	var waiting []*claimState
	for _, p := range states {
		if p.isQueued() {
			waiting = append(waiting, p)
		}
	}
	slices.SortStableFunc(waiting, func(a, b *claimState) int {
		return cmp.Or(a.lastRejected().Compare(b.lastRejected()), a.lastCreated().Compare(b.lastCreated()), cmp.Compare(a.claim.Name, b.claim.Name))
	})
	return waiting
}

func (p *claimState) lastRejected() time.Time {
	if p.retryTime == nil {
		return time.Time{}
	}
	return p.retryTime.Time
}

func (p *claimState) lastCreated() time.Time {
	var last time.Time
	for _, s := range p.snapshots {
		if !s.fromFuture {
			last = maxTime(last, s.createdAt)
		}
	}
	return last
}

// slotTimeout is how long an unready snapshot counts against maxConcurrent: one that hangs
// must not block the others forever.
const slotTimeout = time.Hour

// freeSlots returns how many more snapshots may be in progress now, and when that number
// changes without any event.
func freeSlots(all []*snapshotState, most int32, at clockReadings) (free int, next time.Time) {
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
