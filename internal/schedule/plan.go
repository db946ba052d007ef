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

// maxClockSkew is how far in the future a recorded time may be because of clock skew. A later
// time was recorded with a wrong clock and is ignored.
const maxClockSkew = time.Hour

// planRuns returns the updated record of runs: it starts the run that is due, skips one that
// is too late, and takes over a changed schedule. The record must be written before anything
// else is done. The result is the same until a run is due or the spec changes.
func planRuns(s *schedule, c *calendar, now time.Time) scheduleStatus {
	status := s.Status.clone()
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

// applySuspend removes the plan, so that runs during the suspension are not caught up on. It
// completes an unfinished run. The run's trigger starts another run after the suspension.
func applySuspend(status *scheduleStatus, now time.Time) {
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

// updatePlan takes over a changed schedule. Its runs count from now on. Runs of a new object
// count from its creation: the controller may have been down since.
func updatePlan(status *scheduleStatus, s *schedule, now time.Time) {
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

// accountedUntil returns the time up to which all runs were started or skipped.
func accountedUntil(status *scheduleStatus) time.Time {
	base := status.Plan.Since.Time
	for _, t := range []*metav1.Time{status.LastScheduleTime, status.LastMissedTime} {
		if t != nil {
			base = maxTime(base, t.Time)
		}
	}
	return base
}

// startRun starts the run that is due or triggered, if any. The trigger of an unfinished run
// is passed on to the next run. A trigger value that was completed before another one starts a
// run again.
//
// The ID distinguishes the run from others with the same time, which may have been started
// with a clock that was ahead. It is the resourceVersion of the schedule that the record
// replaces, and only one record can replace a version.
func startRun(status *scheduleStatus, s *schedule, due, now time.Time) {
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
	for i := range status.Targets {
		if last := status.Targets[i].LastRunTime; last.Equal(&status.Run.Time) {
			status.Targets[i].LastRunTime = nil // That was the other run of this time.
		}
	}
}

// isSameRun reports whether a and b are the same run.
func isSameRun(a, b *v1alpha1.Run) bool { return a.Time.Equal(&b.Time) && a.ID == b.ID }

// triggerRunTime returns the time that identifies a triggered run. It is later than the time
// of the last run, unless that was recorded with a wrong clock. It is never a full minute,
// because scheduled runs are: with jitter, a scheduled run may start later and have an earlier
// time.
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

// pendingTrigger returns a trigger whose run is not complete, or "".
func pendingTrigger(status *scheduleStatus) string {
	if status.Run == nil || status.Run.Trigger == status.LastTrigger {
		return ""
	}
	return status.Run.Trigger
}

// missedDeadline reports whether a run that was due is too late now.
func missedDeadline(spec *scheduleSpec, due, now time.Time) bool {
	return spec.StartingDeadline != nil && now.Sub(due) > spec.StartingDeadline.Duration
}

// jitterOffset returns by how much the runs of a schedule are delayed. It is constant during
// the object's lifetime.
func jitterOffset(s *schedule) time.Duration {
	if s.Spec.Jitter == nil || s.Spec.Jitter.Duration <= 0 {
		return 0
	}
	return time.Duration(fraction(s.UID) * float64(s.Spec.Jitter.Duration)).Truncate(time.Second)
}

// fraction derives a number in [0, 1) from a UID.
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

// metaTime converts a time to the API's format, which has whole seconds.
func metaTime(t time.Time) *metav1.Time {
	return &metav1.Time{Time: t.UTC().Truncate(time.Second)}
}
