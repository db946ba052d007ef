package schedule

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/holdfast-io/holdfast/api/v1alpha1"
)

// seen is all that a decision rests on.
type seen struct {
	schedule *v1alpha1.SnapshotSchedule
	calendar *calendar
	claims   []corev1.PersistentVolumeClaim // those that are selected
	shots    []*shot                        // those that the schedule has made
	server   time.Time                      // by the API server's clock; zero if that is not known
}

// A step is what is to be done about a schedule.
type step struct {
	// record is the status that has to be written before anything else; nil if
	// it is already.
	record *v1alpha1.SnapshotScheduleStatus
	// create are the claims to take snapshots of, until free of them are made.
	create []*part
	free   int
	remove []*shot
	// answers says that the trigger of the run is to be answered.
	answers bool
	// withheld says that something stays only because the clocks do not agree.
	withheld bool
	// again is when to look again if nothing happens; zero for never.
	again time.Time
}

// acts tells whether the step changes more than what is reported.
func (s *step) acts() bool {
	return s.record != nil || s.free > 0 && len(s.create) > 0 || len(s.remove) > 0
}

// decide holds the order of things: first what is due is on record, then
// snapshots are taken, then those that are too many are removed. Nothing that
// goes wrong with the one keeps the others from being done.
func decide(s *seen, now time.Time) step {
	record := plan(s.schedule, s.calendar, now)
	if !onRecord(&record, &s.schedule.Status) {
		return step{record: &record}
	}
	if s.schedule.Spec.Suspend {
		return step{}
	}
	var is step
	if record.NextRunTime != nil {
		is.again = record.NextRunTime.Time
	}
	at := clocks{now, s.server}
	parts := s.parts(nil, now)
	for _, p := range parts {
		is.again = sooner(is.again, p.until)
	}
	var freed time.Time
	is.answers = answers(&record, parts)
	is.create = turns(parts)
	if is.free, freed = slots(s.shots, s.schedule.Spec.MaxConcurrent, at); len(is.create) > is.free {
		is.again = sooner(is.again, freed)
	}
	var expiry time.Time
	is.withheld = s.withheld(at)
	is.remove, expiry = s.expired(at)
	is.again = sooner(is.again, at.when(expiry, at.earlier()))
	return is
}

// expired are the snapshots that are not to be kept, each claim for itself, and when the
// next will be, by the earlier clock.
func (s *seen) expired(at clocks) (all []*shot, next time.Time) {
	for claim, shots := range byClaim(s.shots) {
		if claim == "" {
			continue // Somebody has taken the label off: nobody knows what it is a snapshot of.
		}
		gone, then := expired(shots, s.schedule.Spec.Retention, at)
		all, next = append(all, gone...), sooner(next, then)
	}
	return all, next
}

// onRecord tells whether a status has all of a plan that matters. When the next
// run is follows from the rest.
func onRecord(wanted, written *v1alpha1.SnapshotScheduleStatus) bool {
	a, b := *wanted, *written
	a.NextRunTime = b.NextRunTime
	return equality.Semantic.DeepEqual(&a, &b)
}

// parts are the selected claims and how far each is. Refused are those of which
// the API server has just refused a snapshot, and why.
func (s *seen) parts(refused map[string]string, now time.Time) []*part {
	shots, r := byClaim(s.shots), roundOf(s.schedule, clocks{now, s.server})
	before := make(map[string]v1alpha1.ClaimStatus, len(s.schedule.Status.Claims))
	for _, c := range s.schedule.Status.Claims {
		before[c.Name] = c
	}
	parts := make([]*part, 0, len(s.claims))
	for i := range s.claims {
		claim := &s.claims[i]
		p := &part{claim: claim, shots: shots[claim.UID]}
		if was := before[claim.Name]; was.UID == claim.UID {
			p.was = was
		}
		r.judge(p)
		if why, ok := refused[claim.Name]; ok && p.open() {
			p.refuse(why, stamped(now.Add(retryPause)), now)
		}
		parts = append(parts, p)
	}
	return parts
}

// retryPause is how soon a snapshot is tried again that the API server refused.
const retryPause = time.Minute
