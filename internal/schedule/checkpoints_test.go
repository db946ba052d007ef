package schedule

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	checkpointv1alpha1 "github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/api/v1alpha1"
)

// dailyCheckpoints returns a CheckpointSchedule whose run of today is due.
func dailyCheckpoints() *checkpointv1alpha1.CheckpointSchedule {
	return &checkpointv1alpha1.CheckpointSchedule{
		ObjectMeta: metav1.ObjectMeta{Name: "daily", Namespace: "team", UID: "schedule-uid", Generation: 1, CreationTimestamp: *metaTime(longAgo)},
		Spec: checkpointv1alpha1.CheckpointScheduleSpec{
			PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "shop"}},
			Schedule:    "0 2 * * *", TimeZone: "UTC", MaxConcurrent: 2, Trigger: "go",
			Retention:          &checkpointv1alpha1.CheckpointScheduleRetention{MaxCount: ptr.To[int32](1)},
			CheckpointTemplate: checkpointv1alpha1.CheckpointTemplate{PolicyRef: "default", ContainerName: checkpointv1alpha1.AllContainers},
		},
		Status: checkpointv1alpha1.CheckpointScheduleStatus{
			ObservedGeneration: 1, LastScheduleTime: metaTime(twoYesterday),
			Plan: &checkpointv1alpha1.SchedulePlan{Schedule: "0 2 * * *", TimeZone: "UTC", Since: *metaTime(longAgo)},
		},
	}
}

func runningPod(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "team", UID: types.UID(name + "-uid"), Labels: map[string]string{"app": "shop"}, CreationTimestamp: *metaTime(longAgo)},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning},
	}
}

func newCheckpointCrashTest(t *testing.T) *crashTest {
	t.Helper()
	w := &crashTest{kind: checkpointKind{}, now: noon, created: map[string]int{}}
	other, ended := runningPod("other"), runningPod("ended")
	other.Labels, ended.Status.Phase = nil, corev1.PodSucceeded
	objects := []client.Object{dailyCheckpoints(), other, ended}
	for _, name := range []string{"a", "b", "c"} {
		pod := runningPod(name)
		of, schedule := podTarget(pod), checkpointKind{}.fromObject(dailyCheckpoints())
		old := newChildFor(w.kind, schedule, &of, runAt(twoYesterday, twoYesterday))
		old.SetUID("old")
		old.SetCreationTimestamp(*metaTime(twoYesterday))
		setReady(old, twoYesterday)
		objects = append(objects, pod, old)
	}
	w.server = storeOf(objects...)
	w.refresh(t)
	return w
}

func (w *crashTest) assertCheckpointsDone(t *testing.T) {
	t.Helper()
	want := map[string]int{}
	for _, pod := range []string{"a", "b", "c"} {
		want[pod+"-uid "+formatTime(twoToday)] = 1
	}
	if diff := cmp.Diff(want, w.created); diff != "" || len(w.removed) != 3 {
		t.Errorf("removed: %v, created: %s", w.removed, diff)
	}
	s := dailyCheckpoints()
	if err := w.server.Get(t.Context(), client.ObjectKeyFromObject(s), s); err != nil {
		t.Fatal(err)
	}
	if is := s.Status; is.LastTrigger != "go" || is.Run.CompletionTime == nil || is.Conditions[0].Reason != v1alpha1.Scheduled {
		t.Errorf("%+v", is)
	}
	if pods := s.Status.Pods; len(pods) != 4 || pods[3].Reason != checkpointv1alpha1.ReasonPodNotRunning || !strings.Contains(pods[3].Message, "Succeeded") {
		t.Errorf("%+v", pods)
	}
}

// The operator may be killed before or after any write, such as between the creation of two
// Checkpoints: each running pod gets one, and each expired one is deleted once.
func TestARunOfCheckpointsSurvivesDeathAtAnyWrite(t *testing.T) {
	w := newCheckpointCrashTest(t)
	w.runUntilIdle(t, 1)
	w.assertCheckpointsDone(t)
	for n := range w.writes {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("write %d, after %v", n+1, after), func(t *testing.T) {
				w := newCheckpointCrashTest(t)
				w.failAt, w.failAfter = n+1, after
				w.runUntilIdle(t, 2)
				w.assertCheckpointsDone(t)
			})
		}
	}
}

// Two operators may work at the same time for a moment. What the other one has created counts,
// because both give it the same name.
func TestTwoOperatorsCreateOneCheckpointForEachPod(t *testing.T) {
	w := newCheckpointCrashTest(t)
	r, key := w.process(), client.ObjectKeyFromObject(dailyCheckpoints())
	s, err := r.observe(t.Context(), key, true)
	if err != nil {
		t.Fatal(err)
	}
	if s, err = r.writeRecord(t.Context(), s, w.now); err != nil {
		t.Fatal(err)
	}
	other, err := r.observe(t.Context(), key, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*state{s, other} {
		next := decide(s, w.now)
		rejected, err := w.process().createChildren(t.Context(), s, &next)
		if err != nil || len(rejected) > 0 || next.free != 2 || len(next.create) != 3 {
			t.Errorf("%v, rejected: %v, %+v", err, rejected, next)
		}
	}
	if len(w.created) != 2 {
		t.Errorf("created: %v, want those of two pods", w.created)
	}
	for what, n := range w.created {
		if n != 1 {
			t.Errorf("%s was created %d times", what, n)
		}
	}
}

func TestAnInvalidPodSelectorSelectsNothing(t *testing.T) {
	w, s := newCheckpointCrashTest(t), dailyCheckpoints()
	if err := w.server.Get(t.Context(), client.ObjectKeyFromObject(s), s); err != nil {
		t.Fatal(err)
	}
	s.Spec.PodSelector.MatchExpressions = []metav1.LabelSelectorRequirement{{Key: "app", Operator: "Is"}}
	if err := w.server.Update(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	w.refresh(t)
	is, err := w.process().observe(t.Context(), client.ObjectKeyFromObject(s), false)
	if !errors.Is(err, errInvalidSpec) || !strings.Contains(err.Error(), "spec.podSelector") || len(is.targets) > 0 {
		t.Errorf("%v, %+v", err, is)
	}
	if _, err := w.process().Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKeyFromObject(s)}); err != nil || len(w.created) > 0 {
		t.Errorf("%v, created: %v", err, w.created)
	}
}

func TestWhatACheckpointSays(t *testing.T) {
	condition := func(name string, status metav1.ConditionStatus, reason string) func(*checkpointv1alpha1.Checkpoint) {
		return func(c *checkpointv1alpha1.Checkpoint) {
			c.Status.Conditions = append(c.Status.Conditions, metav1.Condition{Type: name, Status: status, Reason: reason, Message: "why"})
		}
	}
	ready := func(status metav1.ConditionStatus, reason string) func(*checkpointv1alpha1.Checkpoint) {
		return condition(checkpointv1alpha1.ConditionReady, status, reason)
	}
	assigned := func(c *checkpointv1alpha1.Checkpoint) {
		c.Status.NodeName, c.Status.PodUID = "n", "a-uid"
		c.Status.Workload = &checkpointv1alpha1.Workload{APIVersion: "apps/v1", Kind: "Deployment", Name: "shop"}
	}
	for name, tt := range map[string]struct {
		changes []func(*checkpointv1alpha1.Checkpoint)
		want    childStatus
	}{
		"a new one belongs to the pod of its label, and may still be of another": {
			nil, childStatus{target: "a-uid", targetName: "a", history: "v1/Pod/a"},
		},
		"an assigned one belongs to its workload": {
			[]func(*checkpointv1alpha1.Checkpoint){assigned, ready(metav1.ConditionFalse, checkpointv1alpha1.ReasonPending)},
			childStatus{target: "a-uid", targetName: "a", targetCertain: true, history: "apps/v1/Deployment/shop", started: true},
		},
		"one whose pod was replaced before is of the new pod": {
			[]func(*checkpointv1alpha1.Checkpoint){assigned, func(c *checkpointv1alpha1.Checkpoint) { c.Status.PodUID = "heir-uid" }},
			childStatus{target: "heir-uid", targetName: "a", targetCertain: true, history: "apps/v1/Deployment/shop", started: true},
		},
		"a ready one is as old as its memory": {
			[]func(*checkpointv1alpha1.Checkpoint){assigned, ready(metav1.ConditionTrue, checkpointv1alpha1.ReasonCompleted), func(c *checkpointv1alpha1.Checkpoint) {
				c.Status.CheckpointTime = ptr.To(metav1.NewMicroTime(noon))
			}},
			childStatus{target: "a-uid", targetName: "a", targetCertain: true, history: "apps/v1/Deployment/shop", started: true, ready: true, hasData: true, takenAt: noon},
		},
		"one that waits for a user says so": {
			[]func(*checkpointv1alpha1.Checkpoint){ready(metav1.ConditionFalse, checkpointv1alpha1.ReasonNoAgent)},
			childStatus{target: "a-uid", targetName: "a", history: "v1/Pod/a", errorMessage: "NodeHasNoAgent: why"},
		},
		"a failed one counts among the failed ones": {
			[]func(*checkpointv1alpha1.Checkpoint){ready(metav1.ConditionFalse, checkpointv1alpha1.ReasonPodGone), condition(checkpointv1alpha1.ConditionFailed, metav1.ConditionTrue, checkpointv1alpha1.ReasonPodGone)},
			childStatus{target: "a-uid", targetName: "a", targetCertain: true, history: failedHistory, failed: true, errorMessage: "PodGone: why"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := &checkpointv1alpha1.Checkpoint{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{podLabel: "a-uid"}}}
			c.Spec.Target.PodName = "a"
			for _, change := range tt.changes {
				change(c)
			}
			if diff := cmp.Diff(tt.want, checkpointKind{}.childStatus(c), cmp.AllowUnexported(childStatus{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestACheckpointIsAsItsTemplate(t *testing.T) {
	object := dailyCheckpoints()
	object.Spec.CheckpointTemplate = checkpointv1alpha1.CheckpointTemplate{
		Labels: map[string]string{"team": "red"}, Annotations: map[string]string{"ticket": "7"}, ContainerName: "main", PolicyRef: "default",
		Storage:        &checkpointv1alpha1.CheckpointStorage{Backend: checkpointv1alpha1.BackendLocal},
		Encryption:     &checkpointv1alpha1.Encryption{SecretRef: checkpointv1alpha1.SecretReference{Name: "key"}},
		EstablishedTCP: checkpointv1alpha1.CloseTCP, MaxFrozenTime: hours(1),
	}
	of := podTarget(runningPod("a"))
	got := newChildFor(checkpointKind{}, checkpointKind{}.fromObject(object), &of, runAt(noon, noon)).(*checkpointv1alpha1.Checkpoint)
	template := &object.Spec.CheckpointTemplate
	want := checkpointv1alpha1.CheckpointSpec{
		Target: checkpointv1alpha1.CheckpointTarget{PodName: "a", ContainerName: "main"}, PolicyRef: "default",
		Storage: template.Storage, Encryption: template.Encryption, EstablishedTCP: checkpointv1alpha1.CloseTCP, MaxFrozenTime: hours(1),
	}
	if diff := cmp.Diff(want, got.Spec); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{"team": "red", nameLabel: "daily", uidLabel: "schedule-uid", podLabel: "a-uid"}, got.Labels); diff != "" {
		t.Error(diff)
	}
	if len(got.OwnerReferences) > 0 || !strings.HasPrefix(got.Name, "a-20261121-120000-") || got.Annotations["ticket"] != "7" || len(template.Labels) != 1 {
		t.Errorf("%+v, template %+v", got.ObjectMeta, template)
	}
}

// Ready Checkpoints count for their workload, whichever pods they are of; failed ones count for
// the schedule.
func TestHistoriesOfCheckpoints(t *testing.T) {
	child := func(hour int, pod, history string, failed bool) *childState {
		when := noon.Add(time.Duration(hour) * time.Hour)
		return &childState{
			childStatus: childStatus{target: types.UID(pod), targetName: pod, targetCertain: true, history: history, ready: !failed, failed: failed, hasData: !failed, takenAt: when},
			name:        fmt.Sprintf("%s%d", pod, hour), createdAt: when,
		}
	}
	children := []*childState{
		child(-1, "x", "shop", false), child(-2, "y", "shop", false), child(-3, "x", "shop", false), child(-4, "gone", "shop", false),
		child(-1, "db", "db", false), child(-5, "x", failedHistory, true), child(-6, "y", failedHistory, true), child(-7, "db", failedHistory, true),
	}
	for name, tt := range map[string]struct {
		keep retention
		want []string
	}{
		"by count":                               {retention{MaxCount: ptr.To[int32](2), MaxFailed: ptr.To[int32](10)}, []string{"gone-4", "x-3"}},
		"by age, and the newest of each stays":   {retention{MaxAge: &metav1.Duration{Duration: 30 * time.Minute}, MaxFailed: ptr.To[int32](10)}, []string{"gone-4", "x-3", "y-2"}},
		"failed ones":                            {retention{MaxFailed: ptr.To[int32](1)}, []string{"db-7", "y-6"}},
		"failed ones can go at once":             {retention{MaxFailed: ptr.To[int32](0)}, []string{"db-7", "x-5", "y-6"}},
		"without a count failed ones stay a day": {retention{MaxCount: ptr.To[int32](9)}, nil},
	} {
		gone, _ := expiredInAll(children, &tt.keep, sameClocks(noon))
		if diff := cmp.Diff(append([]string{}, tt.want...), sortedNames(gone)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	if got := historySelectors(checkpointKind{}.fromObject(dailyCheckpoints()), children); len(got) != 1 || got[0].String() != uidLabel+"=schedule-uid" {
		t.Errorf("all histories of a schedule are read at a time, not by %v", got)
	}
}

// A pod's second Checkpoint waits for the first one, unless concurrencyPolicy is Allow.
func TestConcurrencyPolicy(t *testing.T) {
	for policy, want := range map[checkpointv1alpha1.ConcurrencyPolicy]string{
		checkpointv1alpha1.ForbidConcurrent: v1alpha1.Blocked, checkpointv1alpha1.AllowConcurrent: v1alpha1.Waiting,
	} {
		object := dailyCheckpoints()
		object.Spec.ConcurrencyPolicy = policy
		s := &state{schedule: checkpointKind{}.fromObject(object), serverTime: noon, targets: []target{podTarget(runningPod("data"))}}
		s.schedule.Status.Run = runAt(noon, noon)
		s.children = []*childState{snapshotAt(beforeNoon(time.Hour), notReady)}
		if got := s.targetStates(nil, noon)[0].reason; got != want {
			t.Errorf("%s: %s", policy, got)
		}
	}
}

func TestReportedAges(t *testing.T) {
	s := checkpointKind{}.fromObject(dailyCheckpoints())
	s.Status.Run = runAt(twoToday, twoToday)
	s.Status.Targets = []targetStatus{
		{Name: "ready", LastReadyTime: metaTime(beforeNoon(time.Minute))},
		{Name: "failing", LastReadyTime: metaTime(beforeNoon(48 * time.Hour)), Reason: checkpointv1alpha1.ReasonFailed},
		{Name: "never", Reason: checkpointv1alpha1.ReasonFailed},
		{Name: "new", Reason: v1alpha1.NextRun},
		{Name: "ended", Reason: checkpointv1alpha1.ReasonPodNotRunning},
	}
	want := map[string]time.Duration{"ready": time.Minute, "failing": 48 * time.Hour, "never": 10 * time.Hour}
	if diff := cmp.Diff(want, s.reportedAges(noon)); diff != "" {
		t.Error(diff)
	}
}
