package schedule

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/api/v1alpha1"
)

// ofRun makes it the snapshot of another run than its time says.
func ofRun(when time.Time) func(*shot) { return func(s *shot) { s.run = stamp(when) } }

// since is so long before noon.
func since(d time.Duration) time.Time { return noon.Add(-d) }

func TestJudge(t *testing.T) {
	tests := map[string]struct {
		change func(*seen)
		want   string // the reason
		until  time.Time
	}{
		"a claim without a snapshot of the run waits":  {func(*seen) {}, v1alpha1.Waiting, time.Time{}},
		"one with a ready snapshot of the run is done": {func(s *seen) { s.shots = []*shot{shotAt(noon)} }, "", time.Time{}},
		"one whose snapshot is not ready yet is under way": {
			func(s *seen) { s.shots = []*shot{shotAt(noon, uncut)} }, v1alpha1.InProgress, time.Time{},
		},
		"one whose snapshot reports an error has trouble": {
			func(s *seen) { s.shots = []*shot{shotAt(noon, failing)} }, v1alpha1.SnapshotFailed, time.Time{},
		},
		"one whose snapshot was removed by somebody gets no other": {
			func(s *seen) {
				s.schedule.Status.Claims = []v1alpha1.ClaimStatus{{Name: "data", UID: "data-uid", LastRunTime: stamped(noon)}}
				s.shots = []*shot{shotAt(days(1))}
			}, v1alpha1.Removed, time.Time{},
		},
		"one whose snapshot is being removed neither": {
			func(s *seen) { s.shots = []*shot{shotAt(noon, deleting)} }, v1alpha1.Removed, time.Time{},
		},
		"one whose snapshot went because a later one is ready is done": {
			func(s *seen) {
				s.schedule.Status.Run = runAt(since(time.Hour), since(time.Hour))
				s.schedule.Status.Claims = []v1alpha1.ClaimStatus{{Name: "data", UID: "data-uid", LastRunTime: stamped(since(time.Hour))}}
				s.shots = []*shot{shotAt(since(time.Minute))}
			}, "", time.Time{},
		},
		"one that has taken the name of a claim that had a snapshot gets one of its own": {
			func(s *seen) {
				s.schedule.Status.Claims = []v1alpha1.ClaimStatus{{Name: "data", UID: "another", LastRunTime: stamped(noon)}}
			}, v1alpha1.Waiting, time.Time{},
		},
		"one without a volume is left out":        {func(s *seen) { s.claims[0].Status.Phase = corev1.ClaimPending }, v1alpha1.NotBound, time.Time{}},
		"one that has lost its volume too":        {func(s *seen) { s.claims[0].Status.Phase = corev1.ClaimLost }, v1alpha1.NotBound, time.Time{}},
		"one that is being deleted is left out":   {func(s *seen) { s.claims[0].DeletionTimestamp = stamped(noon) }, v1alpha1.Terminating, time.Time{}},
		"one that comes after the run is over":    {func(s *seen) { s.schedule.Status.Run.CompletionTime = stamped(noon) }, v1alpha1.NextRun, time.Time{}},
		"without a run there is nothing to judge": {func(s *seen) { s.schedule.Status.Run = nil }, "", time.Time{}},
		"one whose last snapshot is not ready waits for that": {
			func(s *seen) { s.shots = []*shot{shotAt(since(time.Hour), uncut)} }, v1alpha1.Blocked, noon.Add(23 * time.Hour),
		},
		"after a day it waits no longer": {func(s *seen) { s.shots = []*shot{shotAt(since(24*time.Hour), uncut)} }, v1alpha1.Waiting, time.Time{}},
		"one whose snapshot the API server refused waits for a while": {
			func(s *seen) {
				s.schedule.Status.Claims = []v1alpha1.ClaimStatus{{Name: "data", UID: "data-uid", Reason: v1alpha1.CreateFailed, RetryTime: stamped(noon.Add(time.Minute))}}
			}, v1alpha1.CreateFailed, noon.Add(time.Minute),
		},
		"and then is tried again": {
			func(s *seen) {
				s.schedule.Status.Claims = []v1alpha1.ClaimStatus{{Name: "data", UID: "data-uid", Reason: v1alpha1.CreateFailed, RetryTime: stamped(noon)}}
			}, v1alpha1.CreateFailed, time.Time{},
		},
		"one that waits for the time of a clock that was wrong is tried again": {
			func(s *seen) {
				s.schedule.Status.Claims = []v1alpha1.ClaimStatus{{Name: "data", UID: "data-uid", Reason: v1alpha1.CreateFailed, RetryTime: stamped(days(-15))}}
			}, v1alpha1.CreateFailed, time.Time{},
		},
		"one whose last snapshot is of the future does not wait for that": {
			func(s *seen) { s.shots = []*shot{shotAt(days(-15), uncut, ahead)} }, v1alpha1.Waiting, time.Time{},
		},
		"one has waited for a day when the API server says so": {
			func(s *seen) { s.server, s.shots = days(15), []*shot{shotAt(days(15).Add(-23*time.Hour), uncut)} }, v1alpha1.Blocked, noon.Add(time.Hour),
		},
		"a snapshot of the same time by another run is not its snapshot": {
			func(s *seen) { s.schedule.Status.Run.ID, s.shots = "8", []*shot{shotAt(days(15), ofRun(noon))} }, v1alpha1.Waiting, time.Time{},
		},
		"one of the same run is": {
			func(s *seen) {
				s.schedule.Status.Run.ID, s.shots = "8", []*shot{shotAt(noon, func(s *shot) { s.runID = "8" })}
			}, "", time.Time{},
		},
		"it is not too late by one clock alone": {
			func(s *seen) {
				s.server = since(12 * time.Hour)
				s.schedule.Spec.StartingDeadline, s.schedule.Status.Run = hours(1), runAt(since(12*time.Hour), noon)
			}, v1alpha1.Waiting, noon.Add(time.Hour),
		},
		"the starting deadline is a time to look again": {
			func(s *seen) {
				s.schedule.Spec.StartingDeadline, s.schedule.Status.Run = hours(1), runAt(since(30*time.Minute), noon)
			}, v1alpha1.Waiting, noon.Add(30 * time.Minute),
		},
		"whose turn comes after it is passed over": {
			func(s *seen) {
				s.schedule.Spec.StartingDeadline, s.schedule.Status.Run = hours(1), runAt(since(61*time.Minute), noon)
			}, v1alpha1.Late, time.Time{},
		},
		"and is told so after the run": {
			func(s *seen) {
				s.schedule.Status.Run.CompletionTime = stamped(noon)
				s.schedule.Status.Claims = []v1alpha1.ClaimStatus{{Name: "data", UID: "data-uid", Reason: v1alpha1.Late}}
			}, v1alpha1.Late, time.Time{},
		},
		"a run that somebody asked for has no deadline": {
			func(s *seen) {
				s.schedule.Spec.StartingDeadline = hours(1)
				s.schedule.Status.Run.Time = *stamped(since(5 * time.Hour))
			}, v1alpha1.Waiting, time.Time{},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := observed(t, midRun(), []corev1.PersistentVolumeClaim{bound("data")})
			tt.change(s)
			got := s.parts(nil, noon)[0]
			if got.reason != tt.want || !got.until.Equal(tt.until) {
				t.Errorf("%s until %s", got.reason, got.until)
			}
			if (got.reason == "") != (got.message == "") && tt.want != v1alpha1.CreateFailed {
				t.Errorf("%s: %q", got.reason, got.message)
			}
		})
	}
}

func TestDecide(t *testing.T) {
	tests := map[string]struct {
		change  func(*seen)
		create  []string
		free    int
		remove  []string
		records bool
		again   time.Time
	}{
		"all claims have their turn while there is room": {
			func(s *seen) { s.claims = manyClaims(2) }, []string{"c0", "c1"}, 10, nil, false, twoTomorrow,
		},
		"no more than allowed are under way": {
			func(s *seen) {
				s.claims, s.schedule.Spec.MaxConcurrent = manyClaims(4), 2
				s.shots = []*shot{shotAt(noon, unready, of("c0"))}
			}, []string{"c1", "c2", "c3"}, 1, nil, false, noon.Add(time.Hour),
		},
		"one that reports an error does not count": {
			func(s *seen) {
				s.claims, s.schedule.Spec.MaxConcurrent = manyClaims(2), 1
				s.shots = []*shot{shotAt(noon, failing, of("c0"))}
			}, []string{"c1"}, 1, nil, false, twoTomorrow,
		},
		"one that hangs for an hour does not count": {
			func(s *seen) {
				s.claims, s.schedule.Spec.MaxConcurrent = manyClaims(2), 1
				s.shots = []*shot{shotAt(since(time.Hour), uncut, of("c0"), ofRun(noon))}
			}, []string{"c1"}, 1, nil, false, twoTomorrow,
		},
		"one of the run before counts": {
			func(s *seen) {
				s.claims, s.schedule.Spec.MaxConcurrent = manyClaims(2), 1
				s.shots = []*shot{shotAt(since(time.Minute), uncut, of("c0"))}
			}, []string{"c1"}, 0, nil, false, noon.Add(59 * time.Minute),
		},
		"one that can never be taken does not count": {
			func(s *seen) {
				s.claims, s.schedule.Spec.MaxConcurrent = manyClaims(1), 1
				s.shots = []*shot{shotAt(since(time.Minute), uncut, claimGone, of("lost"))}
			}, []string{"c0"}, 1, nil, false, twoTomorrow,
		},
		"one of the future does not count": {
			func(s *seen) {
				s.claims, s.schedule.Spec.MaxConcurrent = manyClaims(2), 1
				s.shots = []*shot{shotAt(days(-15), uncut, ahead, of("c0"))}
			}, []string{"c0", "c1"}, 1, nil, false, twoTomorrow,
		},
		"while the clocks differ, what goes next is looked at by the later": {
			func(s *seen) {
				s.server, s.schedule.Spec.Retention = days(15), &v1alpha1.Retention{MaxAge: hours(24)}
				s.shots = []*shot{shotAt(days(15)), shotAt(days(15).Add(-20 * time.Hour))}
			}, nil, 10, nil, false, noon.Add(4 * time.Hour),
		},
		"one that is being deleted does not count": {
			func(s *seen) {
				s.claims, s.schedule.Spec.MaxConcurrent = manyClaims(2), 1
				s.shots = []*shot{shotAt(since(time.Minute), uncut, deleting, of("c0"))}
			}, []string{"c1", "c0"}, 1, nil, false, twoTomorrow,
		},
		"one that was refused has its turn again after a while, and is last": {
			func(s *seen) {
				s.claims, s.schedule.Spec.StartingDeadline, s.schedule.Status.Run = manyClaims(4), hours(1), runAt(since(time.Minute), noon)
				s.schedule.Spec.Trigger = ""
				s.schedule.Status.Claims = []v1alpha1.ClaimStatus{
					{Name: "c0", UID: "c0-uid", Reason: v1alpha1.CreateFailed, RetryTime: stamped(noon)},
					{Name: "c1", UID: "c1-uid", Reason: v1alpha1.CreateFailed, RetryTime: stamped(noon.Add(time.Minute))},
					{Name: "c2", UID: "c2-uid", Reason: v1alpha1.CreateFailed, RetryTime: stamped(since(time.Minute))},
				}
			}, []string{"c3", "c2", "c0"}, 10, nil, false, noon.Add(time.Minute),
		},
		"who has waited longest is first": {
			func(s *seen) {
				s.claims = manyClaims(3)
				s.shots = []*shot{shotAt(days(1), of("c0")), shotAt(days(2), of("c1"))}
			}, []string{"c2", "c1", "c0"}, 10, nil, false, twoTomorrow,
		},
		"a run that is due is put on record first": {
			func(s *seen) { s.schedule.Status.LastScheduleTime = stamped(twoYesterday) }, nil, 0, nil, true, time.Time{},
		},
		"what is too much goes, of claims that are gone too": {
			func(s *seen) {
				s.schedule.Spec.Retention = count(1)
				s.shots = []*shot{shotAt(noon), shotAt(days(1)), shotAt(days(2), of("gone")), shotAt(days(3), of("gone"))}
			}, nil, 10, []string{"data-1120-1200", "gone-1118-1200"}, false, twoTomorrow,
		},
		"each claim has a count of its own": {
			func(s *seen) {
				s.schedule.Spec.Retention = count(1)
				s.shots = []*shot{shotAt(noon), shotAt(days(1), of("more"))}
			}, nil, 10, nil, false, twoTomorrow,
		},
		"what belongs to no claim stays": {
			func(s *seen) {
				s.schedule.Spec.Retention = count(1)
				none := func(s *shot) { s.claim = "" }
				s.shots = []*shot{shotAt(noon), shotAt(days(1), none), shotAt(days(2), none)}
			}, nil, 10, nil, false, twoTomorrow,
		},
		"suspended, nothing is taken and nothing goes": {
			func(s *seen) {
				s.schedule.Spec.Suspend, s.schedule.Spec.Retention = true, count(1)
				s.schedule.Status.Plan, s.schedule.Status.NextRunTime = nil, nil
				s.schedule.Status.Run.Trigger, s.schedule.Status.Run.CompletionTime = "", stamped(noon)
				s.claims, s.shots = manyClaims(1), []*shot{shotAt(noon), shotAt(days(1))}
			}, nil, 0, nil, false, time.Time{},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := observed(t, midRun(), nil)
			tt.change(s)
			got := decide(s, noon)
			var create []string
			for _, p := range got.create {
				create = append(create, p.claim.Name)
			}
			remove := names(got.remove)
			slices.Sort(remove)
			if diff := cmp.Diff(tt.create, create); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(append([]string{}, tt.remove...), remove); diff != "" {
				t.Error(diff)
			}
			if got.free != tt.free || (got.record != nil) != tt.records || !got.again.Equal(tt.again) {
				t.Errorf("free %d, records %v, again %s", got.free, got.record != nil, got.again)
			}
		})
	}
}

func TestSettle(t *testing.T) {
	ready := func(s *v1alpha1.SnapshotScheduleStatus) string {
		return s.Conditions[0].Reason + " " + string(s.Conditions[0].Status)
	}
	tests := map[string]struct {
		change   func(*seen)
		refused  map[string]string
		complete bool
		answered bool
		ready    string
	}{
		"a run is open while a claim waits": {func(*seen) {}, nil, false, false, "Scheduled True"},
		"it is complete when all have theirs, ready or not": {
			func(s *seen) { s.shots = []*shot{shotAt(noon, uncut)} }, nil, true, false, "Scheduled True",
		},
		"its trigger is answered when all are ready": {func(s *seen) { s.shots = []*shot{shotAt(noon)} }, nil, true, true, "Scheduled True"},
		"not when one has failed":                    {func(s *seen) { s.shots = []*shot{shotAt(noon, failing)} }, nil, true, false, "ClaimsFailing False"},
		"not when one has been removed": {
			func(s *seen) {
				s.schedule.Status.Claims = []v1alpha1.ClaimStatus{{Name: "data", UID: "data-uid", LastRunTime: stamped(noon)}}
			}, nil, true, false, "Scheduled True",
		},
		"a claim without a volume keeps nobody": {
			func(s *seen) { s.claims[0].Status.Phase = corev1.ClaimPending }, nil, true, true, "Scheduled True",
		},
		"a claim that was refused keeps it open": {func(*seen) {}, map[string]string{"data": "quota"}, false, false, "ClaimsFailing False"},
		"no claims at all is told":               {func(s *seen) { s.claims = nil }, nil, true, true, "NoClaims True"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := observed(t, midRun(), []corev1.PersistentVolumeClaim{bound("data")})
			tt.change(s)
			got := settle(s, setbacks{claims: tt.refused}, noon)
			if (got.Run.CompletionTime != nil) != tt.complete || (got.LastTrigger == "go") != tt.answered || ready(got) != tt.ready {
				t.Errorf("complete %v, answered %v, %s", got.Run.CompletionTime, got.LastTrigger, ready(got))
			}
			s.schedule.Status = *got
			if diff := cmp.Diff(got, settle(s, setbacks{claims: tt.refused}, noon)); diff != "" {
				t.Errorf("told again it is something else: %s", diff)
			}
		})
	}
}

func TestTheStatusOfAClaim(t *testing.T) {
	s := observed(t, midRun(), []corev1.PersistentVolumeClaim{bound("data")}, shotAt(noon, failing), shotAt(days(1)), shotAt(days(2)))
	got := settle(s, setbacks{}, noon).Claims
	want := []v1alpha1.ClaimStatus{{
		Name: "data", UID: "data-uid", LastRunTime: stamped(noon), LastSnapshot: "data-1121-1200",
		LastReadySnapshot: "data-1120-1200", LastReadyTime: stamped(days(1)),
		Reason: v1alpha1.SnapshotFailed, Message: "VolumeSnapshot data-1121-1200: no room",
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// The status must fit into an object, with those in trouble first.
func TestManyClaimsFitIntoTheStatus(t *testing.T) {
	s := observed(t, midRun(), manyClaims(2000))
	got := settle(s, setbacks{claims: map[string]string{"c1999": strings.Repeat("x", 5000)}}, noon)
	last := slices.IndexFunc(got.Claims, func(c v1alpha1.ClaimStatus) bool { return c.Name == "c1999" })
	if len(got.Claims) != reported || last < 0 || len(got.Claims[last].Message) > words {
		t.Errorf("%d claims, the troubled one is at %d", len(got.Claims), last)
	}
}

// Whatever they are named and whatever is wrong with them: etcd takes requests of
// 1.5 MiB, and is not to be filled.
func TestTheWorstStatusFitsIntoAnObject(t *testing.T) {
	claims, refused := manyClaims(2000), map[string]string{}
	for i := range claims {
		claims[i].Name = fmt.Sprintf("%04d%s", i, strings.Repeat("n", 249))
		claims[i].UID = types.UID(fmt.Sprintf("00000000-0000-4000-8000-%012d", i))
		refused[claims[i].Name] = strings.Repeat(`"`, 5000) // Each is two bytes.
	}
	var shots []*shot
	for _, c := range claims {
		shots = append(shots, shotAt(days(1), func(s *shot) { s.name, s.claim = snapshotName("s", &c, runAt(days(1), days(1))), c.UID }))
	}
	text, err := json.Marshal(settle(observed(t, midRun(), claims, shots...), setbacks{claims: refused}, noon))
	if err != nil || len(text) > 1<<20 {
		t.Errorf("%v, %d bytes", err, len(text))
	}
}

func TestAges(t *testing.T) {
	fresh, pending := bound("fresh"), bound("pending")
	fresh.CreationTimestamp = *stamped(since(time.Hour))
	pending.Status.Phase = corev1.ClaimPending
	s := observed(t, daily(), []corev1.PersistentVolumeClaim{bound("data"), fresh, pending}, shotAt(noon, failing), shotAt(days(2)))
	want := map[string]time.Duration{"data": 48 * time.Hour, "fresh": time.Hour}
	if diff := cmp.Diff(want, s.ages(noon)); diff != "" {
		t.Error(diff)
	}
}

// The age of what there is goes on to be measured when nothing is taken any more
// because the spec makes no sense.
func TestAgesOfWhatCannotBeRead(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*v1alpha1.SnapshotSchedule)
		ages   int
	}{
		"a minute that there is not": {func(s *v1alpha1.SnapshotSchedule) { s.Spec.Schedule = "61 * * * *" }, 3},
		"a selector that selects nothing": {func(s *v1alpha1.SnapshotSchedule) {
			s.Spec.ClaimSelector.MatchExpressions = []metav1.LabelSelectorRequirement{{Key: "app", Operator: "Is"}}
		}, 0},
	} {
		sched := daily()
		tt.change(sched)
		w := newCrashWorld(t, sched, manyClaims(3))
		s, err := w.process().observe(t.Context(), client.ObjectKeyFromObject(sched), false)
		if !errors.Is(err, errInvalid) || len(s.ages(noon)) != tt.ages {
			t.Errorf("%s: %v, %v", name, err, s)
		}
	}
}
