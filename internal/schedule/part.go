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

// A part is what a claim has to do with the present run.
type part struct {
	claim *corev1.PersistentVolumeClaim
	shots []*shot // newest first
	was   v1alpha1.ClaimStatus
	// reason is why it has no ready snapshot of the run, empty if it has.
	reason, message string
	// refused is until when a refusal of the API server counts, nil if there is none;
	// due says that it is over.
	refused *metav1.Time
	due     bool
	// until is when the reason may be another without anything happening; zero
	// for never.
	until time.Time
}

// open tells whether the claim may still get its snapshot in this run.
func (p *part) open() bool {
	return p.reason == v1alpha1.Waiting || p.reason == v1alpha1.Blocked || p.reason == v1alpha1.CreateFailed
}

// troubled tells whether somebody should look.
func (p *part) troubled() bool {
	switch p.reason {
	case v1alpha1.CreateFailed, v1alpha1.SnapshotFailed, v1alpha1.Late, v1alpha1.Blocked:
		return true
	}
	return false
}

// excused tells whether the claim has nothing, or nothing yet, of which there
// could be a snapshot in this run.
func (p *part) excused() bool {
	return p.reason == v1alpha1.NotBound || p.reason == v1alpha1.Terminating || p.reason == v1alpha1.NextRun
}

// lacks tells whether the claim keeps a trigger from being answered.
func (p *part) lacks() bool { return p.reason != "" && !p.excused() }

// answers tells whether the trigger of a run is to be answered.
func answers(is *v1alpha1.SnapshotScheduleStatus, parts []*part) bool {
	return is.Run != nil && is.Run.Trigger != "" && is.Run.Trigger != is.LastTrigger && !slices.ContainsFunc(parts, (*part).lacks)
}

// A round is a run with what is needed to judge about its parts.
type round struct {
	*v1alpha1.Run
	deadline time.Time // zero for none
	at       clocks
}

// roundOf is the present run of a schedule.
func roundOf(s *v1alpha1.SnapshotSchedule, at clocks) round {
	r := round{Run: s.Status.Run, at: at}
	if deadline := s.Spec.StartingDeadline; deadline != nil && r.Run != nil && r.Trigger == "" {
		r.deadline = r.Time.Add(offset(s) + deadline.Duration)
	}
	return r
}

// judge tells how far a claim is in a run.
func (r *round) judge(p *part) {
	if r.Run == nil || r.served(p) {
		return
	}
	switch {
	case p.claim.DeletionTimestamp != nil:
		p.reason, p.message = v1alpha1.Terminating, "the claim is being deleted"
	case p.claim.Status.Phase != corev1.ClaimBound:
		p.reason, p.message = v1alpha1.NotBound, fmt.Sprintf("the claim is %s: it has no volume", cmp.Or(p.claim.Status.Phase, corev1.ClaimPending))
	case r.CompletionTime != nil && p.was.Reason != v1alpha1.Late:
		p.reason, p.message = v1alpha1.NextRun, "the claim takes part from the next run on"
	case r.CompletionTime != nil, !r.deadline.IsZero() && r.at.earlier().After(r.deadline):
		p.reason, p.message = v1alpha1.Late, fmt.Sprintf("its turn in the run of %s did not come within spec.startingDeadline", stamp(r.Time.Time))
	default:
		r.queue(p)
		p.until = sooner(p.until, r.at.when(r.deadline, r.at.earlier()))
	}
}

// served judges a claim that has got its snapshot of this run.
func (r *round) served(p *part) bool {
	s := p.find(r.Run)
	switch {
	case s == nil && (p.was.LastRunTime == nil || !p.was.LastRunTime.Equal(&r.Time)):
		return false
	case s == nil || s.deleting:
		r.removed(p)
	case s.ready:
	case s.failure != "":
		p.reason, p.message = v1alpha1.SnapshotFailed, fmt.Sprintf("VolumeSnapshot %s: %s", s.name, s.failure)
	default:
		p.reason, p.message = v1alpha1.InProgress, fmt.Sprintf("VolumeSnapshot %s is not ready yet", s.name)
	}
	return true
}

// removed judges a claim whose snapshot of this run is gone, or not in the cache
// yet. Retention removes it only if there is a later one.
func (r *round) removed(p *part) {
	if good := newestReady(p.shots); good != nil && !good.taken.Before(r.StartTime.Time) {
		return
	}
	p.reason, p.message = v1alpha1.Removed, "the VolumeSnapshot of the last run has been removed; the claim gets another in the next run"
}

// find is the snapshot of a run, nil if there is none.
func (p *part) find(run *v1alpha1.Run) *shot {
	for _, s := range p.shots {
		if s.run == stamp(run.Time.Time) && s.runID == run.ID {
			return s
		}
	}
	return nil
}

// queue judges a claim that is to get a snapshot.
func (r *round) queue(p *part) {
	for _, s := range p.shots {
		now := r.at.stamps()
		if until := s.created.Add(abandoned); s.underWay() && until.After(now) {
			p.reason, p.until = v1alpha1.Blocked, r.at.when(until, now)
			p.message = fmt.Sprintf("VolumeSnapshot %s, of the run before, is not ready yet", s.name)
			if s.failure != "" {
				p.message += ": " + s.failure
			}
			return
		}
	}
	if p.was.Reason == v1alpha1.CreateFailed && p.was.RetryTime != nil {
		p.refuse(p.was.Message, p.was.RetryTime, r.at.own)
		return
	}
	p.reason, p.message = v1alpha1.Waiting, "the claim waits for its turn: see spec.maxConcurrent"
}

// refuse notes that the API server has refused a snapshot, and until when it is not
// asked for another. A time far in the future is of a clock that was ahead.
func (p *part) refuse(why string, until *metav1.Time, now time.Time) {
	p.reason, p.message, p.refused = v1alpha1.CreateFailed, why, until
	if p.due = !until.After(now) || until.After(now.Add(skew)); !p.due {
		p.until = until.Time
	}
}

// waits tells whether the claim is to get its snapshot when its turn comes.
func (p *part) waits() bool { return p.reason == v1alpha1.Waiting || p.due }

// turns are the claims that wait, whoever has waited longest first; but first of
// all those that were not refused, which are not to wait for what may take long.
func turns(parts []*part) []*part {
	var waiting []*part
	for _, p := range parts {
		if p.waits() {
			waiting = append(waiting, p)
		}
	}
	slices.SortStableFunc(waiting, func(a, b *part) int {
		return cmp.Or(a.lastRefused().Compare(b.lastRefused()), a.lastCreated().Compare(b.lastCreated()), cmp.Compare(a.claim.Name, b.claim.Name))
	})
	return waiting
}

func (p *part) lastRefused() time.Time {
	if p.refused == nil {
		return time.Time{}
	}
	return p.refused.Time
}

func (p *part) lastCreated() time.Time {
	var last time.Time
	for _, s := range p.shots {
		if !s.ahead {
			last = latter(last, s.created)
		}
	}
	return last
}

// slow is how long a snapshot may take before it does not count as under way
// any more: one that hangs must not keep the others from theirs for ever.
const slow = time.Hour

// slots is how many more snapshots may be under way now, and when that changes
// by itself.
func slots(all []*shot, most int32, at clocks) (free int, next time.Time) {
	free = int(most)
	now := at.stamps()
	for _, s := range all {
		if !s.underWay() || s.failure != "" {
			continue
		}
		if until := s.created.Add(slow); until.After(now) {
			free--
			next = sooner(next, until)
		}
	}
	return max(free, 0), at.when(next, now)
}
