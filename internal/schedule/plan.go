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

// skew is how far in the future a time on record may be because clocks differ.
// Beyond it a clock was wrong, and the time does not count.
const skew = time.Hour

// plan brings the record of runs up to date: it begins the run that is due, passes
// over one that is too late, and takes note of another schedule. What it returns
// has to be on record before anything is done about it. It is the same whenever
// it is asked until something is due or changes.
func plan(s *v1alpha1.SnapshotSchedule, c *calendar, now time.Time) v1alpha1.SnapshotScheduleStatus {
	is := *s.Status.DeepCopy()
	if s.Spec.Suspend {
		suspend(&is, now)
		return is
	}
	follow(&is, s, now)
	base, shift := counted(&is), offset(s)
	due := c.latest(base, now.Add(-shift))
	if !due.IsZero() && late(&s.Spec, due.Add(shift), now) {
		is.LastMissedTime, due = stamped(due), time.Time{}
	}
	begin(&is, s, due, now)
	is.NextRunTime = nil
	if next := c.next(latter(counted(&is), now.Add(-shift))); !next.IsZero() {
		is.NextRunTime = stamped(next.Add(shift))
	}
	return is
}

// suspend forgets the plan, so that what falls into the suspension is nobody's.
// A run that was not complete is over; its trigger asks again when the suspension
// ends.
func suspend(is *v1alpha1.SnapshotScheduleStatus, now time.Time) {
	is.Plan, is.NextRunTime = nil, nil
	if is.Run == nil {
		return
	}
	if is.Run.Trigger != is.LastTrigger {
		is.Run.Trigger = ""
	}
	if is.Run.CompletionTime == nil {
		is.Run.CompletionTime = stamped(now)
	}
}

// follow takes note of another schedule than before, whose runs count from now
// on. Those of a new object count from when it was made: it may have waited for
// this program.
func follow(is *v1alpha1.SnapshotScheduleStatus, s *v1alpha1.SnapshotSchedule, now time.Time) {
	wrong := is.Plan != nil && counted(is).After(now.Add(skew))
	if !wrong && is.Plan != nil && is.Plan.Schedule == s.Spec.Schedule && is.Plan.TimeZone == s.Spec.TimeZone {
		return
	}
	since := now
	if is.ObservedGeneration == 0 {
		since = s.CreationTimestamp.Time
	}
	if wrong {
		is.LastScheduleTime, is.LastMissedTime = nil, nil
	}
	is.Plan = &v1alpha1.Plan{Schedule: s.Spec.Schedule, TimeZone: s.Spec.TimeZone, Since: *stamped(since)}
}

// counted is up to when all runs are accounted for.
func counted(is *v1alpha1.SnapshotScheduleStatus) time.Time {
	base := is.Plan.Since.Time
	for _, t := range []*metav1.Time{is.LastScheduleTime, is.LastMissedTime} {
		if t != nil {
			base = latter(base, t.Time)
		}
	}
	return base
}

// begin begins the run that is due or asked for, if there is one. A trigger that
// an unfinished run was to answer is left to its successor. One that was answered
// before another asks again.
//
// The run is told by its ID from another of the same time, which a clock that was ahead
// may have begun. The ID is the version of the schedule that the record is written over:
// a record succeeds no other's of that version.
func begin(is *v1alpha1.SnapshotScheduleStatus, s *v1alpha1.SnapshotSchedule, due, now time.Time) {
	asked, spec := pending(is), &s.Spec
	fresh := spec.Trigger != "" && spec.Trigger != cmp.Or(asked, is.LastTrigger)
	if due.IsZero() && !fresh {
		return
	}
	if fresh {
		asked = spec.Trigger
	}
	if asked == is.LastTrigger {
		is.LastTrigger = ""
	}
	if !due.IsZero() {
		is.LastScheduleTime = stamped(due)
	} else {
		due = untaken(is.Run, now)
	}
	is.Run = &v1alpha1.Run{Time: *stamped(due), ID: s.ResourceVersion, StartTime: *stamped(now), Trigger: asked}
	for i := range is.Claims {
		if last := is.Claims[i].LastRunTime; last.Equal(&is.Run.Time) {
			is.Claims[i].LastRunTime = nil // That was the other run of this time.
		}
	}
}

// sameRun tells whether two runs are one.
func sameRun(a, b *v1alpha1.Run) bool { return a.Time.Equal(&b.Time) && a.ID == b.ID }

// untaken is the time that names the run of a trigger. It is later than that of the
// last run, unless that is of a clock that was wrong, and never at the full minute:
// so are those by schedule, and with jitter one of them may begin later and have an
// earlier name.
func untaken(last *v1alpha1.Run, now time.Time) time.Time {
	t := now.Truncate(time.Second)
	if last != nil && !last.Time.After(now.Add(skew)) {
		t = latter(t, last.Time.Add(time.Second))
	}
	if t.Second() == 0 {
		t = t.Add(time.Second)
	}
	return t
}

// pending is a trigger that has been seen and not been answered.
func pending(is *v1alpha1.SnapshotScheduleStatus) string {
	if is.Run == nil || is.Run.Trigger == is.LastTrigger {
		return ""
	}
	return is.Run.Trigger
}

// late tells whether something that was due is too late now.
func late(spec *v1alpha1.SnapshotScheduleSpec, due, now time.Time) bool {
	return spec.StartingDeadline != nil && now.Sub(due) > spec.StartingDeadline.Duration
}

// offset is by how much the runs of a schedule are shifted. It stays the same as
// long as the object lives.
func offset(s *v1alpha1.SnapshotSchedule) time.Duration {
	if s.Spec.Jitter == nil || s.Spec.Jitter.Duration <= 0 {
		return 0
	}
	return time.Duration(spread(s.UID) * float64(s.Spec.Jitter.Duration)).Truncate(time.Second)
}

// spread is a number from 0 to below 1 that belongs to a UID.
func spread(uid types.UID) float64 {
	sum := sha256.Sum256([]byte(uid))
	return float64(binary.BigEndian.Uint32(sum[:])) / (1 << 32)
}

func latter(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// stamped is a time as the API keeps it, which is in seconds.
func stamped(t time.Time) *metav1.Time {
	return &metav1.Time{Time: t.UTC().Truncate(time.Second)}
}
