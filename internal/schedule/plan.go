package schedule

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-io/holdfast/api/v1alpha1"
)

// maxClockSkew is how far in the future a time on record may be because clocks differ.
// Beyond it a clock was wrong, and the time does not count.
const maxClockSkew = time.Hour

// planRuns brings the record of runs up to date: it begins the run that is due, passes
// over one that is too late, and takes note of another schedule. What it returns
// has to be on record before anything is done about it. It is the same whenever
// it is asked until something is due or changes.
func planRuns(s *v1alpha1.SnapshotSchedule, c *calendar, now time.Time) v1alpha1.SnapshotScheduleStatus {
	status := *s.Status.DeepCopy()
	if s.Spec.Suspend {
		applySuspend(&status, now)
		return status
	}
	updatePlan(&status, s, now)
	base, shift := accountedUntil(&status), jitterOffset(s)
	due := c.latest(base, now.Add(-shift))
	if !due.IsZero() && missedDeadline(&s.Spec, due.Add(shift), now) {
		status.LastMissedTime, due = metaTime(due), time.Time{}
	}
	startRun(&status, s, due, now)
	status.NextRunTime = nil
	if next := c.next(maxTime(accountedUntil(&status), now.Add(-shift))); !next.IsZero() {
		status.NextRunTime = metaTime(next.Add(shift))
	}
	return status
}

// applySuspend forgets the plan, so that what falls into the suspension is nobody's.
// A run that was not complete is over; its trigger asks again when the suspension
// ends.
func applySuspend(status *v1alpha1.SnapshotScheduleStatus, now time.Time) {
	status.Plan, status.NextRunTime = nil, nil
	if status.Run == nil {
		return
	}
	if status.Run.Trigger != status.LastTrigger {
		status.Run.Trigger = ""
	}
	if status.Run.CompletionTime == nil {
		status.Run.CompletionTime = metaTime(now)
	}
}

// updatePlan takes note of another schedule than before, whose runs count from now
// on. Those of a new object count from when it was made: it may have waited for
// this program.
func updatePlan(status *v1alpha1.SnapshotScheduleStatus, s *v1alpha1.SnapshotSchedule, now time.Time) {
	clockWasAhead := status.Plan != nil && accountedUntil(status).After(now.Add(maxClockSkew))
	if !clockWasAhead && status.Plan != nil && status.Plan.Schedule == s.Spec.Schedule && status.Plan.TimeZone == s.Spec.TimeZone {
		return
	}
	since := now
	if status.ObservedGeneration == 0 {
		since = s.CreationTimestamp.Time
	}
	if clockWasAhead {
		status.LastScheduleTime, status.LastMissedTime = nil, nil
	}
	status.Plan = &v1alpha1.Plan{Schedule: s.Spec.Schedule, TimeZone: s.Spec.TimeZone, Since: *metaTime(since)}
}

// accountedUntil is up to when all runs are accounted for.
func accountedUntil(status *v1alpha1.SnapshotScheduleStatus) time.Time {
	base := status.Plan.Since.Time
	for _, t := range []*metav1.Time{status.LastScheduleTime, status.LastMissedTime} {
		if t != nil {
			base = maxTime(base, t.Time)
		}
	}
	return base
}

// startRun begins the run that is due or asked for, if there is one. A trigger that
// an unfinished run was to answer is left to its successor. One that was answered
// before another asks again.
//
// The run is told by its ID from another of the same time, which a clock that was ahead
// may have begun. The ID is the version of the schedule that the record is written over:
// a record succeeds no other's of that version.
func startRun(status *v1alpha1.SnapshotScheduleStatus, s *v1alpha1.SnapshotSchedule, due, now time.Time) {
	trigger, spec := pendingTrigger(status), &s.Spec
	newTrigger := spec.Trigger != "" && spec.Trigger != cmp.Or(trigger, status.LastTrigger)
	if due.IsZero() && !newTrigger {
		return
	}
	if newTrigger {
		trigger = spec.Trigger
	}
	if trigger == status.LastTrigger {
		status.LastTrigger = ""
	}
	if !due.IsZero() {
		status.LastScheduleTime = metaTime(due)
	} else {
		due = triggerRunTime(status.Run, now)
	}
	status.Run = &v1alpha1.Run{Time: *metaTime(due), ID: s.ResourceVersion, StartTime: *metaTime(now), Trigger: trigger}
	for i := range status.Claims {
		if last := status.Claims[i].LastRunTime; last.Equal(&status.Run.Time) {
			status.Claims[i].LastRunTime = nil // That was the other run of this time.
		}
	}
}

// isSameRun tells whether two runs are one.
func isSameRun(a, b *v1alpha1.Run) bool { return a.Time.Equal(&b.Time) && a.ID == b.ID }

// triggerRunTime is the time that names the run of a trigger. It is later than that of the
// last run, unless that is of a clock that was wrong, and never at the full minute:
// so are those by schedule, and with jitter one of them may begin later and have an
// earlier name.
func triggerRunTime(last *v1alpha1.Run, now time.Time) time.Time {
	t := now.Truncate(time.Second)
	if last != nil && !last.Time.After(now.Add(maxClockSkew)) {
		t = maxTime(t, last.Time.Add(time.Second))
	}
	if t.Second() == 0 {
		t = t.Add(time.Second)
	}
	return t
}

// pendingTrigger is a trigger that has been seen and not been answered.
func pendingTrigger(status *v1alpha1.SnapshotScheduleStatus) string {
	if status.Run == nil || status.Run.Trigger == status.LastTrigger {
		return ""
	}
	return status.Run.Trigger
}

// missedDeadline tells whether something that was due is too late now.
func missedDeadline(spec *v1alpha1.SnapshotScheduleSpec, due, now time.Time) bool {
	return spec.StartingDeadline != nil && now.Sub(due) > spec.StartingDeadline.Duration
}

// jitterOffset is by how much the runs of a schedule are shifted. It stays the same as
// long as the object lives.
func jitterOffset(s *v1alpha1.SnapshotSchedule) time.Duration {
	if s.Spec.Jitter == nil || s.Spec.Jitter.Duration <= 0 {
		return 0
	}
	return time.Duration(fraction(s.UID) * float64(s.Spec.Jitter.Duration)).Truncate(time.Second)
}

// fraction is a number from 0 to below 1 that belongs to a UID.
func fraction(uid types.UID) float64 {
	sum := sha256.Sum256([]byte(uid))
	return float64(binary.BigEndian.Uint32(sum[:])) / (1 << 32)
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// metaTime is a time as the API keeps it, which is in seconds.
func metaTime(t time.Time) *metav1.Time {
	return &metav1.Time{Time: t.UTC().Truncate(time.Second)}
}
