package schedule

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/holdfast-io/holdfast/api/v1alpha1"
)

// state is all that a decision rests on.
type state struct {
	schedule   *v1alpha1.SnapshotSchedule
	calendar   *calendar
	claims     []corev1.PersistentVolumeClaim // those that are selected
	snapshots  []*snapshotState               // those that the schedule has made
	serverTime time.Time                      // by the API server's clock; zero if that is not known
}

// A step is what is to be done about a schedule.
type step struct {
	// record is the status that has to be written before anything else; nil if
	// it is already.
	record *v1alpha1.SnapshotScheduleStatus
	// create are the claims to take snapshots of, until free of them are made.
	create []*claimState
	free   int
	remove []*snapshotState
	// triggerSatisfied says that the trigger of the run is to be answered.
	triggerSatisfied bool
	// withheld says that something stays only because the clocks do not agree.
	withheld bool
	// requeueAt is when to look again if nothing happens; zero for never.
	requeueAt time.Time
}

// hasWork tells whether the step changes more than what is reported.
func (s *step) hasWork() bool {
	return s.record != nil || s.free > 0 && len(s.create) > 0 || len(s.remove) > 0
}

// decide holds the order of things: first what is due is on record, then
// snapshots are taken, then those that are too many are removed. Nothing that
// goes wrong with the one keeps the others from being done.
func decide(s *state, now time.Time) step {
	record := planRuns(s.schedule, s.calendar, now)
	if !isRecorded(&record, &s.schedule.Status) {
		return step{record: &record}
	}
	if s.schedule.Spec.Suspend {
		return step{}
	}
	var next step
	if record.NextRunTime != nil {
		next.requeueAt = record.NextRunTime.Time
	}
	at := clockReadings{now, s.serverTime}
	states := s.claimStates(nil, now)
	for _, p := range states {
		next.requeueAt = minNonZero(next.requeueAt, p.until)
	}
	var freed time.Time
	next.triggerSatisfied = triggerSatisfied(&record, states)
	next.create = queueOrder(states)
	if next.free, freed = freeSlots(s.snapshots, s.schedule.Spec.MaxConcurrent, at); len(next.create) > next.free {
		next.requeueAt = minNonZero(next.requeueAt, freed)
	}
	var expiry time.Time
	next.withheld = s.withheld(at)
	next.remove, expiry = s.expired(at)
	next.requeueAt = minNonZero(next.requeueAt, at.toOwn(expiry, at.earlier()))
	return next
}

// expired are the snapshots that are not to be kept, each claim for itself, and when the
// next will be, by the earlier clock.
func (s *state) expired(at clockReadings) (all []*snapshotState, next time.Time) {
	for claim, snapshots := range byClaim(s.snapshots) {
		if claim == "" {
			continue // Somebody has taken the label off: nobody knows what it is a snapshot of.
		}
		gone, then := expired(snapshots, s.schedule.Spec.Retention, at)
		all, next = append(all, gone...), minNonZero(next, then)
	}
	return all, next
}

// isRecorded tells whether a status has all of a plan that matters. When the next
// run is follows from the rest.
func isRecorded(wanted, written *v1alpha1.SnapshotScheduleStatus) bool {
	a, b := *wanted, *written
	a.NextRunTime = b.NextRunTime
	return equality.Semantic.DeepEqual(&a, &b)
}

// claimStates are the selected claims and how far each is. Refused are those of which
// the API server has just refused a snapshot, and why.
func (s *state) claimStates(rejected map[string]string, now time.Time) []*claimState {
	snapshots, r := byClaim(s.snapshots), currentRun(s.schedule, clockReadings{now, s.serverTime})
	before := make(map[string]v1alpha1.ClaimStatus, len(s.schedule.Status.Claims))
	for _, c := range s.schedule.Status.Claims {
		before[c.Name] = c
	}
	states := make([]*claimState, 0, len(s.claims))
	for i := range s.claims {
		claim := &s.claims[i]
		p := &claimState{claim: claim, snapshots: snapshots[claim.UID]}
		if was := before[claim.Name]; was.UID == claim.UID {
			p.recorded = was
		}
		r.evaluate(p)
		if why, ok := rejected[claim.Name]; ok && p.isPending() {
			p.setCreateFailed(why, metaTime(now.Add(retryInterval)), now)
		}
		states = append(states, p)
	}
	return states
}

// retryInterval is how soon a snapshot is tried again that the API server refused.
const retryInterval = time.Minute
