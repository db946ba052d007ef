package schedule

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/holdfast-io/holdfast/api/v1alpha1"
)

// state is the observed state that decisions are based on.
type state struct {
	schedule   *v1alpha1.SnapshotSchedule
	calendar   *calendar
	claims     []corev1.PersistentVolumeClaim // those that are selected
	snapshots  []*snapshotState               // those that the schedule has made
	serverTime time.Time                      // by the API server's clock; zero if that is not known
}

// A step is what to do next for a schedule.
type step struct {
	// record is the status to write before anything else; nil if it is written.
	record *v1alpha1.SnapshotScheduleStatus
	// create are the claims to take snapshots of, in order. At most free are created now.
	create []*claimState
	free   int
	remove []*snapshotState
	// triggerSatisfied is set if the trigger of the run is complete.
	triggerSatisfied bool
	// withheld is set if a snapshot is kept only because the clocks differ.
	withheld bool
	// requeueAt is when to reconcile again if nothing changes; zero for never.
	requeueAt time.Time
}

// hasWork reports whether the step does more than update the reported status.
func (s *step) hasWork() bool {
	return s.record != nil || s.free > 0 && len(s.create) > 0 || len(s.remove) > 0
}

// decide has the order of actions: record a run that is due, then take snapshots, then delete
// expired ones. A failure of one does not prevent the others.
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

// expired returns the expired snapshots of all claims, and when the next one expires, by the
// earlier clock.
func (s *state) expired(at clockReadings) (all []*snapshotState, next time.Time) {
	for claim, snapshots := range byClaim(s.snapshots) {
		if claim == "" {
			continue // Somebody has removed the label: the claim is unknown.
		}
		gone, then := expired(snapshots, s.schedule.Spec.Retention, at)
		all, next = append(all, gone...), minNonZero(next, then)
	}
	return all, next
}

// isRecorded reports whether the written status has everything of the wanted one. The next run
// time is ignored: it follows from the rest.
func isRecorded(wanted, written *v1alpha1.SnapshotScheduleStatus) bool {
	a, b := *wanted, *written
	a.NextRunTime = b.NextRunTime
	return equality.Semantic.DeepEqual(&a, &b)
}

// claimStates returns the state of each selected claim. Rejected has the claims whose
// snapshot the API server just rejected, and why.
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

// retryInterval is after how long creating a rejected snapshot is retried.
const retryInterval = time.Minute
