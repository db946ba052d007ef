package schedule

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-io/holdfast/api/v1alpha1"
)

// runAt is the run of a time, begun at another.
func runAt(when, begun time.Time) *v1alpha1.Run {
	return &v1alpha1.Run{Time: *metaTime(when), StartTime: *metaTime(begun)}
}

func hours(n int) *metav1.Duration { return &metav1.Duration{Duration: time.Duration(n) * time.Hour} }

func TestPlan(t *testing.T) {
	type status = scheduleStatus
	tests := map[string]struct {
		change func(*schedule)
		want   func(*status)
	}{
		"nothing is due between runs": {func(*schedule) {}, func(*status) {}},
		"a run that is due begins": {
			func(s *schedule) { s.Status.LastScheduleTime = metaTime(twoYesterday) },
			func(is *status) { is.LastScheduleTime, is.Run = metaTime(twoToday), runAt(twoToday, noon) },
		},
		"of many missed runs the newest is caught up": {
			func(s *schedule) { s.Status.LastScheduleTime = metaTime(twoToday.AddDate(0, 0, -20)) },
			func(is *status) { is.LastScheduleTime, is.Run = metaTime(twoToday), runAt(twoToday, noon) },
		},
		"a run within the starting deadline is caught up": {
			func(s *schedule) {
				s.Status.LastScheduleTime, s.Spec.StartingDeadline = metaTime(twoYesterday), hours(11)
			},
			func(is *status) { is.LastScheduleTime, is.Run = metaTime(twoToday), runAt(twoToday, noon) },
		},
		"a run beyond the starting deadline is passed over, and on record": {
			func(s *schedule) {
				s.Status.LastScheduleTime, s.Spec.StartingDeadline = metaTime(twoYesterday), hours(9)
			},
			func(is *status) { is.LastScheduleTime, is.LastMissedTime = metaTime(twoYesterday), metaTime(twoToday) },
		},
		"a run that was passed over is not looked at again": {
			func(s *schedule) {
				s.Status.LastScheduleTime, s.Status.LastMissedTime = metaTime(twoYesterday), metaTime(twoToday)
			},
			func(is *status) { is.LastScheduleTime, is.LastMissedTime = metaTime(twoYesterday), metaTime(twoToday) },
		},
		"a schedule that waited for this program since it was made is caught up": {
			func(s *schedule) { s.Status = status{} },
			func(is *status) {
				is.ObservedGeneration = 0
				is.LastScheduleTime, is.Run = metaTime(twoToday), runAt(twoToday, noon)
			},
		},
		"a new schedule has nothing to catch up": {
			func(s *schedule) { s.Status, s.CreationTimestamp = status{}, *metaTime(noon) },
			func(is *status) {
				*is = status{Plan: is.Plan, NextRunTime: is.NextRunTime}
				is.Plan.Since = *metaTime(noon)
			},
		},
		"another schedule counts from now on": {
			func(s *schedule) { s.Spec.Schedule = "0 11 * * *" },
			func(is *status) {
				is.Plan = &v1alpha1.Plan{Schedule: "0 11 * * *", TimeZone: "UTC", Since: *metaTime(noon)}
				is.NextRunTime = metaTime(noon.Add(23 * time.Hour))
			},
		},
		"another time zone counts from now on": {
			func(s *schedule) { s.Spec.TimeZone = "America/New_York" },
			func(is *status) {
				is.Plan = &v1alpha1.Plan{Schedule: "0 2 * * *", TimeZone: "America/New_York", Since: *metaTime(noon)}
				is.NextRunTime = metaTime(noon.Add(19 * time.Hour))
			},
		},
		"a suspension takes the plan away": {
			func(s *schedule) { s.Spec.Suspend, s.Status.LastScheduleTime = true, metaTime(twoYesterday) },
			func(is *status) { is.Plan, is.NextRunTime, is.LastScheduleTime = nil, nil, metaTime(twoYesterday) },
		},
		"a suspension ends a run": {
			func(s *schedule) { s.Spec.Suspend, s.Status.Run.CompletionTime = true, nil },
			func(is *status) { is.Plan, is.NextRunTime, is.Run.CompletionTime = nil, nil, metaTime(noon) },
		},
		"what fell into a suspension is not caught up": {
			func(s *schedule) { s.Status.Plan, s.Status.LastScheduleTime = nil, metaTime(twoYesterday) },
			func(is *status) { is.Plan.Since, is.LastScheduleTime = *metaTime(noon), metaTime(twoYesterday) },
		},
		"a trigger begins a run now": {
			func(s *schedule) { s.Spec.Trigger = "one" },
			func(is *status) {
				is.Run = &v1alpha1.Run{Time: *metaTime(noon.Add(time.Second)), StartTime: *metaTime(noon), Trigger: "one"}
			},
		},
		"a trigger that was answered begins nothing": {
			func(s *schedule) { s.Spec.Trigger, s.Status.LastTrigger = "one", "one" },
			func(is *status) { is.LastTrigger = "one" },
		},
		"a trigger that is being answered begins nothing": {
			func(s *schedule) { s.Spec.Trigger, s.Status.Run.Trigger = "one", "one" },
			func(is *status) { is.Run.Trigger = "one" },
		},
		"a trigger that is taken away begins nothing": {
			func(s *schedule) { s.Status.LastTrigger = "one" },
			func(is *status) { is.LastTrigger = "one" },
		},
		"a run that is due answers a trigger too": {
			func(s *schedule) { s.Spec.Trigger, s.Status.LastScheduleTime = "one", metaTime(twoYesterday) },
			func(is *status) {
				is.LastScheduleTime = metaTime(twoToday)
				is.Run = &v1alpha1.Run{Time: *metaTime(twoToday), StartTime: *metaTime(noon), Trigger: "one"}
			},
		},
		"a run that is due takes over a trigger that was not answered": {
			func(s *schedule) {
				s.Spec.Trigger, s.Status.LastScheduleTime = "one", metaTime(twoYesterday)
				s.Status.Run = &v1alpha1.Run{Time: *metaTime(longAgo), StartTime: *metaTime(longAgo), Trigger: "one"}
			},
			func(is *status) {
				is.LastScheduleTime = metaTime(twoToday)
				is.Run = &v1alpha1.Run{Time: *metaTime(twoToday), StartTime: *metaTime(noon), Trigger: "one"}
			},
		},
		"two triggers within a second have runs of different names": {
			func(s *schedule) { s.Spec.Trigger, s.Status.Run = "two", runAt(noon.Add(time.Second), noon) },
			func(is *status) {
				is.Run = &v1alpha1.Run{Time: *metaTime(noon.Add(2 * time.Second)), StartTime: *metaTime(noon), Trigger: "two"}
			},
		},
		"so have more than two": {
			func(s *schedule) { s.Spec.Trigger, s.Status.Run = "four", runAt(noon.Add(59*time.Second), noon) },
			func(is *status) {
				is.Run = &v1alpha1.Run{Time: *metaTime(noon.Add(61 * time.Second)), StartTime: *metaTime(noon), Trigger: "four"}
			},
		},
		"the time of a clock that was wrong is no name to begin from": {
			func(s *schedule) { s.Spec.Trigger, s.Status.Run = "two", runAt(noon.AddDate(1, 0, 0), noon) },
			func(is *status) {
				is.Run = &v1alpha1.Run{Time: *metaTime(noon.Add(time.Second)), StartTime: *metaTime(noon), Trigger: "two"}
			},
		},
		"a trigger that was answered before the last asks again": {
			func(s *schedule) {
				s.Spec.Trigger, s.Status.LastTrigger, s.Status.Run.Trigger = "one", "one", "two"
			},
			func(is *status) {
				is.Run = &v1alpha1.Run{Time: *metaTime(noon.Add(time.Second)), StartTime: *metaTime(noon), Trigger: "one"}
			},
		},
		"a trigger waits while the schedule is suspended": {
			func(s *schedule) { s.Spec.Trigger, s.Spec.Suspend = "one", true },
			func(is *status) { is.Plan, is.NextRunTime = nil, nil },
		},
		"a trigger whose run was suspended asks again": {
			func(s *schedule) { s.Spec.Trigger, s.Spec.Suspend, s.Status.Run.Trigger = "one", true, "one" },
			func(is *status) { is.Plan, is.NextRunTime = nil, nil },
		},
		"a run is told from others of its time by the version that it is written over": {
			func(s *schedule) { s.ResourceVersion, s.Status.LastScheduleTime = "8", metaTime(twoYesterday) },
			func(is *status) {
				is.LastScheduleTime, is.Run = metaTime(twoToday), runAt(twoToday, noon)
				is.Run.ID = "8"
			},
		},
		"who had a snapshot of another run of its time has none of this": {
			func(s *schedule) {
				s.Status.LastScheduleTime = metaTime(twoYesterday)
				s.Status.Targets = []targetStatus{{Name: "a", LastRunTime: metaTime(twoToday)}, {Name: "b", LastRunTime: metaTime(twoYesterday)}, {Name: "c"}}
			},
			func(is *status) {
				is.LastScheduleTime, is.Run = metaTime(twoToday), runAt(twoToday, noon)
				is.Targets = []targetStatus{{Name: "a"}, {Name: "b", LastRunTime: metaTime(twoYesterday)}, {Name: "c"}}
			},
		},
		"a time from a clock that was wrong does not count": {
			func(s *schedule) { s.Status.LastScheduleTime = metaTime(noon.AddDate(1, 0, 0)) },
			func(is *status) { is.LastScheduleTime, is.Plan.Since = nil, *metaTime(noon) },
		},
		"a time from a clock that is a little ahead counts": {
			func(s *schedule) { s.Status.LastScheduleTime = metaTime(noon.Add(time.Minute)) },
			func(is *status) { is.LastScheduleTime = metaTime(noon.Add(time.Minute)) },
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := snapshotKind{}.fromObject(daily())
			want := s.Status.clone()
			tt.change(s)
			tt.want(&want)
			c := calendarOf(t, s.Spec.Schedule, s.Spec.TimeZone)
			got := planRuns(s, c, noon)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			s.Status = got
			if diff := cmp.Diff(got, planRuns(s, c, noon.Add(time.Minute))); diff != "" {
				t.Errorf("a minute later, on record, it is another plan: %s", diff)
			}
		})
	}
}

// Jitter moves when a run begins, not what it is called, and it is counted
// against the starting deadline.
func TestJitterShiftsRuns(t *testing.T) {
	s := snapshotKind{}.fromObject(daily())
	s.Spec.Jitter = hours(10)
	s.Status.LastScheduleTime = metaTime(twoYesterday)
	shift := jitterOffset(s)
	if shift <= 0 || shift >= 10*time.Hour {
		t.Fatal(shift)
	}
	c := calendarOf(t, s.Spec.Schedule, s.Spec.TimeZone)
	if is := planRuns(s, c, twoToday.Add(shift-time.Second)); !is.LastScheduleTime.Equal(metaTime(twoYesterday)) || !is.NextRunTime.Equal(metaTime(twoToday.Add(shift))) {
		t.Errorf("a second before: %+v", is)
	}
	s.Spec.StartingDeadline = &metav1.Duration{Duration: time.Minute}
	if is := planRuns(s, c, twoToday.Add(shift)); !is.LastScheduleTime.Equal(metaTime(twoToday)) || !is.Run.Time.Equal(metaTime(twoToday)) || is.LastMissedTime != nil {
		t.Errorf("at its time: %+v", is)
	}
}

func TestJitterIsTheSameForAnObjectAndSpreadOverMany(t *testing.T) {
	s := snapshotKind{}.fromObject(daily())
	s.Spec.Jitter = &metav1.Duration{Duration: 100 * time.Second}
	quarters := map[int]int{}
	for i := range 1000 {
		s.UID = types.UID(fmt.Sprintf("00000000-0000-4000-8000-%012d", i))
		shift := jitterOffset(s)
		if shift != jitterOffset(s) || shift < 0 || shift >= 100*time.Second {
			t.Fatal(shift)
		}
		quarters[int(shift/(25*time.Second))]++
	}
	for q := range 4 {
		if quarters[q] < 150 {
			t.Errorf("quarter %d of the time has %d of 1000", q, quarters[q])
		}
	}
}
