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
func ofRun(when time.Time) func(*childState) {
	return func(s *childState) { s.run = formatTime(when) }
}

// beforeNoon is so long before noon.
func beforeNoon(d time.Duration) time.Time { return noon.Add(-d) }

func TestJudge(t *testing.T) {
	tests := map[string]struct {
		change func(*state)
		want   string // the reason
		until  time.Time
	}{
		"a claim without a snapshot of the run waits":      {func(*state) {}, v1alpha1.Waiting, time.Time{}},
		"a claim with a ready snapshot of the run is done": {func(s *state) { s.children = []*childState{snapshotAt(noon)} }, "", time.Time{}},
		"a claim whose snapshot is not ready is in progress": {
			func(s *state) { s.children = []*childState{snapshotAt(noon, notAtDriver)} }, v1alpha1.InProgress, time.Time{},
		},
		"a claim whose snapshot reports an error is failing": {
			func(s *state) { s.children = []*childState{snapshotAt(noon, withError)} }, v1alpha1.SnapshotFailed, time.Time{},
		},
		"a claim whose snapshot was deleted gets no other in this run": {
			func(s *state) {
				s.schedule.Status.Targets = []targetStatus{{Name: "data", UID: "data-uid", LastRunTime: metaTime(noon)}}
				s.children = []*childState{snapshotAt(daysAgo(1))}
			}, v1alpha1.Removed, time.Time{},
		},
		"neither does one whose snapshot is being deleted": {
			func(s *state) { s.children = []*childState{snapshotAt(noon, deleting)} }, v1alpha1.Removed, time.Time{},
		},
		"a claim is done if retention deleted its snapshot": {
			func(s *state) {
				s.schedule.Status.Run = runAt(beforeNoon(time.Hour), beforeNoon(time.Hour))
				s.schedule.Status.Targets = []targetStatus{{Name: "data", UID: "data-uid", LastRunTime: metaTime(beforeNoon(time.Hour))}}
				s.children = []*childState{snapshotAt(beforeNoon(time.Minute))}
			}, "", time.Time{},
		},
		"a new claim with an old name gets its own snapshot": {
			func(s *state) {
				s.schedule.Status.Targets = []targetStatus{{Name: "data", UID: "another", LastRunTime: metaTime(noon)}}
			}, v1alpha1.Waiting, time.Time{},
		},
		"a claim without a volume is skipped":                          {func(s *state) { s.targets[0].SkipReason, s.targets[0].SkipMessage = v1alpha1.NotBound, "no volume" }, v1alpha1.NotBound, time.Time{}},
		"a claim that is being deleted is skipped":                     {func(s *state) { s.targets[0].Deleting = true }, v1alpha1.Terminating, time.Time{}},
		"a claim that is created after the run waits for the next one": {func(s *state) { s.schedule.Status.Run.CompletionTime = metaTime(noon) }, v1alpha1.NextRun, time.Time{}},
		"without a run there is no reason":                             {func(s *state) { s.schedule.Status.Run = nil }, "", time.Time{}},
		"a claim waits for its unready snapshot": {
			func(s *state) { s.children = []*childState{snapshotAt(beforeNoon(time.Hour), notAtDriver)} }, v1alpha1.Blocked, noon.Add(23 * time.Hour),
		},
		"a claim waits for a day at most": {func(s *state) { s.children = []*childState{snapshotAt(beforeNoon(24*time.Hour), notAtDriver)} }, v1alpha1.Waiting, time.Time{}},
		"a claim whose snapshot was rejected waits for the retry": {
			func(s *state) {
				s.schedule.Status.Targets = []targetStatus{{Name: "data", UID: "data-uid", Reason: v1alpha1.CreateFailed, RetryTime: metaTime(noon.Add(time.Minute))}}
			}, v1alpha1.CreateFailed, noon.Add(time.Minute),
		},
		"a rejected snapshot is retried": {
			func(s *state) {
				s.schedule.Status.Targets = []targetStatus{{Name: "data", UID: "data-uid", Reason: v1alpha1.CreateFailed, RetryTime: metaTime(noon)}}
			}, v1alpha1.CreateFailed, time.Time{},
		},
		"a retry time from a wrong clock is ignored": {
			func(s *state) {
				s.schedule.Status.Targets = []targetStatus{{Name: "data", UID: "data-uid", Reason: v1alpha1.CreateFailed, RetryTime: metaTime(daysAgo(-15))}}
			}, v1alpha1.CreateFailed, time.Time{},
		},
		"a snapshot from the future is not waited for": {
			func(s *state) { s.children = []*childState{snapshotAt(daysAgo(-15), notAtDriver, fromFuture)} }, v1alpha1.Waiting, time.Time{},
		},
		"the day of waiting is measured by the API server's clock": {
			func(s *state) {
				s.serverTime, s.children = daysAgo(15), []*childState{snapshotAt(daysAgo(15).Add(-23*time.Hour), notAtDriver)}
			}, v1alpha1.Blocked, noon.Add(time.Hour),
		},
		"another run's snapshot with the same time does not count": {
			func(s *state) {
				s.schedule.Status.Run.ID, s.children = "8", []*childState{snapshotAt(daysAgo(15), ofRun(noon))}
			}, v1alpha1.Waiting, time.Time{},
		},
		"a snapshot with the run's ID counts": {
			func(s *state) {
				s.schedule.Status.Run.ID, s.children = "8", []*childState{snapshotAt(noon, func(s *childState) { s.runID = "8" })}
			}, "", time.Time{},
		},
		"the deadline must have passed by both clocks": {
			func(s *state) {
				s.serverTime = beforeNoon(12 * time.Hour)
				s.schedule.Spec.StartingDeadline, s.schedule.Status.Run = hours(1), runAt(beforeNoon(12*time.Hour), noon)
			}, v1alpha1.Waiting, noon.Add(time.Hour),
		},
		"the reason may change at the starting deadline": {
			func(s *state) {
				s.schedule.Spec.StartingDeadline, s.schedule.Status.Run = hours(1), runAt(beforeNoon(30*time.Minute), noon)
			}, v1alpha1.Waiting, noon.Add(30 * time.Minute),
		},
		"a claim whose turn comes too late is skipped": {
			func(s *state) {
				s.schedule.Spec.StartingDeadline, s.schedule.Status.Run = hours(1), runAt(beforeNoon(61*time.Minute), noon)
			}, v1alpha1.Late, time.Time{},
		},
		"a skipped claim is reported after the run": {
			func(s *state) {
				s.schedule.Status.Run.CompletionTime = metaTime(noon)
				s.schedule.Status.Targets = []targetStatus{{Name: "data", UID: "data-uid", Reason: v1alpha1.Late}}
			}, v1alpha1.Late, time.Time{},
		},
		"a triggered run has no deadline": {
			func(s *state) {
				s.schedule.Spec.StartingDeadline = hours(1)
				s.schedule.Status.Run.Time = *metaTime(beforeNoon(5 * time.Hour))
			}, v1alpha1.Waiting, time.Time{},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := stateOf(t, midRun(), []corev1.PersistentVolumeClaim{boundClaim("data")})
			tt.change(s)
			got := s.targetStates(nil, noon)[0]
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
		change  func(*state)
		create  []string
		free    int
		remove  []string
		records bool
		again   time.Time
	}{
		"all claims are queued while slots are free": {
			func(s *state) { s.targets = manyTargets(2) }, []string{"c0", "c1"}, 10, nil, false, twoTomorrow,
		},
		"no more than maxConcurrent are in progress": {
			func(s *state) {
				s.targets, s.schedule.Spec.MaxConcurrent = manyTargets(4), 2
				s.children = []*childState{snapshotAt(noon, notReady, ofClaim("c0"))}
			}, []string{"c1", "c2", "c3"}, 1, nil, false, noon.Add(time.Hour),
		},
		"a snapshot that reports an error does not count": {
			func(s *state) {
				s.targets, s.schedule.Spec.MaxConcurrent = manyTargets(2), 1
				s.children = []*childState{snapshotAt(noon, withError, ofClaim("c0"))}
			}, []string{"c1"}, 1, nil, false, twoTomorrow,
		},
		"a snapshot that hangs for an hour does not count": {
			func(s *state) {
				s.targets, s.schedule.Spec.MaxConcurrent = manyTargets(2), 1
				s.children = []*childState{snapshotAt(beforeNoon(time.Hour), notAtDriver, ofClaim("c0"), ofRun(noon))}
			}, []string{"c1"}, 1, nil, false, twoTomorrow,
		},
		"a snapshot of an earlier run counts": {
			func(s *state) {
				s.targets, s.schedule.Spec.MaxConcurrent = manyTargets(2), 1
				s.children = []*childState{snapshotAt(beforeNoon(time.Minute), notAtDriver, ofClaim("c0"))}
			}, []string{"c1"}, 0, nil, false, noon.Add(59 * time.Minute),
		},
		"a snapshot that can never be taken does not count": {
			func(s *state) {
				s.targets, s.schedule.Spec.MaxConcurrent = manyTargets(1), 1
				s.children = []*childState{snapshotAt(beforeNoon(time.Minute), notAtDriver, claimGone, ofClaim("lost"))}
			}, []string{"c0"}, 1, nil, false, twoTomorrow,
		},
		"a snapshot from the future does not count": {
			func(s *state) {
				s.targets, s.schedule.Spec.MaxConcurrent = manyTargets(2), 1
				s.children = []*childState{snapshotAt(daysAgo(-15), notAtDriver, fromFuture, ofClaim("c0"))}
			}, []string{"c0", "c1"}, 1, nil, false, twoTomorrow,
		},
		"while the clocks differ, the next expiry is by the earlier clock": {
			func(s *state) {
				s.serverTime, s.schedule.Spec.Retention = daysAgo(15), &retention{MaxAge: hours(24)}
				s.children = []*childState{snapshotAt(daysAgo(15)), snapshotAt(daysAgo(15).Add(-20 * time.Hour))}
			}, nil, 10, nil, false, noon.Add(4 * time.Hour),
		},
		"a snapshot that is being deleted does not count": {
			func(s *state) {
				s.targets, s.schedule.Spec.MaxConcurrent = manyTargets(2), 1
				s.children = []*childState{snapshotAt(beforeNoon(time.Minute), notAtDriver, deleting, ofClaim("c0"))}
			}, []string{"c1", "c0"}, 1, nil, false, twoTomorrow,
		},
		"a rejected snapshot is retried after a pause, and last": {
			func(s *state) {
				s.targets, s.schedule.Spec.StartingDeadline, s.schedule.Status.Run = manyTargets(4), hours(1), runAt(beforeNoon(time.Minute), noon)
				s.schedule.Spec.Trigger = ""
				s.schedule.Status.Targets = []targetStatus{
					{Name: "c0", UID: "c0-uid", Reason: v1alpha1.CreateFailed, RetryTime: metaTime(noon)},
					{Name: "c1", UID: "c1-uid", Reason: v1alpha1.CreateFailed, RetryTime: metaTime(noon.Add(time.Minute))},
					{Name: "c2", UID: "c2-uid", Reason: v1alpha1.CreateFailed, RetryTime: metaTime(beforeNoon(time.Minute))},
				}
			}, []string{"c3", "c2", "c0"}, 10, nil, false, noon.Add(time.Minute),
		},
		"the claim with the oldest snapshot is first": {
			func(s *state) {
				s.targets = manyTargets(3)
				s.children = []*childState{snapshotAt(daysAgo(1), ofClaim("c0")), snapshotAt(daysAgo(2), ofClaim("c1"))}
			}, []string{"c2", "c1", "c0"}, 10, nil, false, twoTomorrow,
		},
		"a run that is due is recorded first": {
			func(s *state) { s.schedule.Status.LastScheduleTime = metaTime(twoYesterday) }, nil, 0, nil, true, time.Time{},
		},
		"surplus snapshots are deleted, also those of deleted claims": {
			func(s *state) {
				s.schedule.Spec.Retention = keepCount(1)
				s.children = []*childState{snapshotAt(noon), snapshotAt(daysAgo(1)), snapshotAt(daysAgo(2), ofClaim("gone")), snapshotAt(daysAgo(3), ofClaim("gone"))}
			}, nil, 10, []string{"data-1120-1200", "gone-1118-1200"}, false, twoTomorrow,
		},
		"each claim has its own count": {
			func(s *state) {
				s.schedule.Spec.Retention = keepCount(1)
				s.children = []*childState{snapshotAt(noon), snapshotAt(daysAgo(1), ofClaim("more"))}
			}, nil, 10, nil, false, twoTomorrow,
		},
		"snapshots without a claim are kept": {
			func(s *state) {
				s.schedule.Spec.Retention = keepCount(1)
				none := func(s *childState) { s.target, s.history = "", "" }
				s.children = []*childState{snapshotAt(noon), snapshotAt(daysAgo(1), none), snapshotAt(daysAgo(2), none)}
			}, nil, 10, nil, false, twoTomorrow,
		},
		"while suspended, nothing is created or deleted": {
			func(s *state) {
				s.schedule.Spec.Suspend, s.schedule.Spec.Retention = true, keepCount(1)
				s.schedule.Status.Plan, s.schedule.Status.NextRunTime = nil, nil
				s.schedule.Status.Run.Trigger, s.schedule.Status.Run.CompletionTime = "", metaTime(noon)
				s.targets, s.children = manyTargets(1), []*childState{snapshotAt(noon), snapshotAt(daysAgo(1))}
			}, nil, 0, nil, false, time.Time{},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := stateOf(t, midRun(), nil)
			tt.change(s)
			got := decide(s, noon)
			var create []string
			for _, p := range got.create {
				create = append(create, p.target.Name)
			}
			remove := snapshotNames(got.remove)
			slices.Sort(remove)
			if diff := cmp.Diff(tt.create, create); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(append([]string{}, tt.remove...), remove); diff != "" {
				t.Error(diff)
			}
			if got.free != tt.free || (got.record != nil) != tt.records || !got.requeueAt.Equal(tt.again) {
				t.Errorf("free %d, records %v, again %s", got.free, got.record != nil, got.requeueAt)
			}
		})
	}
}

func TestSettle(t *testing.T) {
	ready := func(s *scheduleStatus) string {
		return s.Conditions[0].Reason + " " + string(s.Conditions[0].Status)
	}
	tests := map[string]struct {
		change   func(*state)
		refused  map[string]string
		complete bool
		answered bool
		ready    string
	}{
		"a run is open while a claim waits": {func(*state) {}, nil, false, false, "Scheduled True"},
		"it is complete when all have theirs, ready or not": {
			func(s *state) { s.children = []*childState{snapshotAt(noon, notAtDriver)} }, nil, true, false, "Scheduled True",
		},
		"its trigger is answered when all are ready": {func(s *state) { s.children = []*childState{snapshotAt(noon)} }, nil, true, true, "Scheduled True"},
		"not when one has failed":                    {func(s *state) { s.children = []*childState{snapshotAt(noon, withError)} }, nil, true, false, "ClaimsFailing False"},
		"not when one has been removed": {
			func(s *state) {
				s.schedule.Status.Targets = []targetStatus{{Name: "data", UID: "data-uid", LastRunTime: metaTime(noon)}}
			}, nil, true, false, "Scheduled True",
		},
		"a claim without a volume keeps nobody": {
			func(s *state) { s.targets[0].SkipReason, s.targets[0].SkipMessage = v1alpha1.NotBound, "no volume" }, nil, true, true, "Scheduled True",
		},
		"a claim that was refused keeps it open": {func(*state) {}, map[string]string{"data": "quota"}, false, false, "ClaimsFailing False"},
		"no claims at all is told":               {func(s *state) { s.targets = nil }, nil, true, true, "NoClaims True"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := stateOf(t, midRun(), []corev1.PersistentVolumeClaim{boundClaim("data")})
			tt.change(s)
			got := newStatus(s, rejections{targets: tt.refused}, noon)
			if (got.Run.CompletionTime != nil) != tt.complete || (got.LastTrigger == "go") != tt.answered || ready(got) != tt.ready {
				t.Errorf("complete %v, answered %v, %s", got.Run.CompletionTime, got.LastTrigger, ready(got))
			}
			s.schedule.Status = *got
			if diff := cmp.Diff(got, newStatus(s, rejections{targets: tt.refused}, noon)); diff != "" {
				t.Errorf("told again it is something else: %s", diff)
			}
		})
	}
}

func TestTheStatusOfAClaim(t *testing.T) {
	s := stateOf(t, midRun(), []corev1.PersistentVolumeClaim{boundClaim("data")}, snapshotAt(noon, withError), snapshotAt(daysAgo(1)), snapshotAt(daysAgo(2)))
	got := newStatus(s, rejections{}, noon).Targets
	want := []targetStatus{{
		Name: "data", UID: "data-uid", LastRunTime: metaTime(noon), LastChild: "data-1121-1200",
		LastReadyChild: "data-1120-1200", LastReadyTime: metaTime(daysAgo(1)),
		Reason: v1alpha1.SnapshotFailed, Message: "VolumeSnapshot data-1121-1200: no room",
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// The status must fit into an object, with those in trouble first.
func TestManyClaimsFitIntoTheStatus(t *testing.T) {
	s := stateOf(t, midRun(), manyClaims(2000))
	got := newStatus(s, rejections{targets: map[string]string{"c1999": strings.Repeat("x", 5000)}}, noon)
	last := slices.IndexFunc(got.Targets, func(c targetStatus) bool { return c.Name == "c1999" })
	if len(got.Targets) != maxReportedTargets || last < 0 || len(got.Targets[last].Message) > maxMessageLength {
		t.Errorf("%d claims, the troubled one is at %d", len(got.Targets), last)
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
	var snapshots []*childState
	for _, c := range claims {
		snapshots = append(snapshots, snapshotAt(daysAgo(1), func(s *childState) { s.name, s.target = nameFor("s", &c, runAt(daysAgo(1), daysAgo(1))), c.UID }))
	}
	text, err := json.Marshal(newStatus(stateOf(t, midRun(), claims, snapshots...), rejections{targets: refused}, noon))
	if err != nil || len(text) > 1<<20 {
		t.Errorf("%v, %d bytes", err, len(text))
	}
}

func TestAges(t *testing.T) {
	fresh, pending := boundClaim("fresh"), boundClaim("pending")
	fresh.CreationTimestamp = *metaTime(beforeNoon(time.Hour))
	pending.Status.Phase = corev1.ClaimPending
	s := stateOf(t, daily(), []corev1.PersistentVolumeClaim{boundClaim("data"), fresh, pending}, snapshotAt(noon, withError), snapshotAt(daysAgo(2)))
	want := map[string]time.Duration{"data": 48 * time.Hour, "fresh": time.Hour}
	if diff := cmp.Diff(want, s.lastReadyAges(noon)); diff != "" {
		t.Error(diff)
	}
}

// The age of what there is goes on to be measured when nothing is taken any more
// because the spec is invalid.
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
		w := newCrashTest(t, sched, manyClaims(3))
		s, err := w.process().observe(t.Context(), client.ObjectKeyFromObject(sched), false)
		if !errors.Is(err, errInvalidSpec) || len(s.lastReadyAges(noon)) != tt.ages {
			t.Errorf("%s: %v, %v", name, err, s)
		}
	}
}
