package schedule

import (
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
)

// state is the observed state that decisions are based on.
type state struct {
	schedule   *schedule
	calendar   *calendar
	targets    []target      // those that are selected
	children   []*childState // those that the schedule has made
	serverTime time.Time     // by the API server's clock; zero if that is not known
}

// A step is what to do next for a schedule.
type step struct {
	// record is the status to write before anything else; nil if it is written.
	record *scheduleStatus
	// create are the targets to create children for, in order. At most free are created now.
	create []*targetState
	free   int
	remove []*childState
	// triggerSatisfied is set if the trigger of the run is complete.
	triggerSatisfied bool
	// withheld is set if a child is kept only because the clocks differ.
	withheld bool
	// requeueAt is when to reconcile again if nothing changes; zero for never.
	requeueAt time.Time
}

// hasWork reports whether the step does more than update the reported status.
func (s *step) hasWork() bool {
	return s.record != nil || s.free > 0 && len(s.create) > 0 || len(s.remove) > 0
}

// decide has the order of actions: record a run that is due, then create children, then delete
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
	states := s.targetStates(nil, now)
	for _, p := range states {
		next.requeueAt = minNonZero(next.requeueAt, p.until)
	}
	var freed time.Time
	next.triggerSatisfied = triggerSatisfied(&record, states)
	next.create = queueOrder(states)
	if next.free, freed = freeSlots(s.children, s.schedule.Spec.MaxConcurrent, at); len(next.create) > next.free {
		next.requeueAt = minNonZero(next.requeueAt, freed)
	}
	var expiry time.Time
	next.withheld = s.withheld(at)
	next.remove, expiry = s.expired(at)
	next.requeueAt = minNonZero(next.requeueAt, at.toOwn(expiry, at.earlier()))
	return next
}

// expired returns the expired children of all histories, and when the next one expires, by the
// earlier clock.
func (s *state) expired(at clockReadings) (all []*childState, next time.Time) {
	return expiredInAll(s.children, s.schedule.Spec.Retention, at)
}

func expiredInAll(children []*childState, keep *retention, at clockReadings) (all []*childState, next time.Time) {
	for _, history := range byHistory(children) {
		gone, then := expired(history, keep, at)
		all, next = append(all, gone...), minNonZero(next, then)
	}
	return all, next
}

// isRecorded reports whether the written status has everything of the wanted one. The next run
// time is ignored: it follows from the rest.
func isRecorded(wanted, written *scheduleStatus) bool {
	a, b := *wanted, *written
	a.NextRunTime = b.NextRunTime
	return equality.Semantic.DeepEqual(&a, &b)
}

// targetStates returns the state of each selected target. Rejected has the targets whose
// child the API server just rejected, and why.
func (s *state) targetStates(rejected map[string]string, now time.Time) []*targetState {
	children, r := byTarget(s.children), currentRun(s.schedule, clockReadings{now, s.serverTime})
	before := make(map[string]targetStatus, len(s.schedule.Status.Targets))
	for _, c := range s.schedule.Status.Targets {
		before[c.Name] = c
	}
	states := make([]*targetState, 0, len(s.targets))
	for i := range s.targets {
		t := &s.targets[i]
		p := &targetState{target: t, children: children[t.UID]}
		if was := before[t.Name]; was.UID == t.UID {
			p.recorded = was
		}
		r.evaluate(p)
		if why, ok := rejected[t.Name]; ok && p.isPending() {
			p.setCreateFailed(why, metaTime(now.Add(retryInterval)), now)
		}
		states = append(states, p)
	}
	return states
}

// retryInterval is after how long creating a rejected child is retried.
const retryInterval = time.Minute
