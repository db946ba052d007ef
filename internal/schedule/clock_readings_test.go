package schedule

import (
	"strings"
	"testing"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/api/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/kube"
)

// newAgingTest is one whose claims have two ready snapshots each, of yesterday and of
// today. They are kept for a fortnight.
func newAgingTest(t *testing.T) *crashTest {
	t.Helper()
	s := daily()
	s.Spec.Retention, s.Status.LastScheduleTime = &v1alpha1.Retention{MaxAge: hours(14 * 24)}, metaTime(twoYesterday)
	w := newCrashTest(t, s, manyClaims(2))
	w.runUntilIdle(t, 1)
	if len(w.created) != 2 || len(w.removed) > 0 {
		t.Fatalf("taken: %v, removed: %v", w.created, w.removed)
	}
	return w
}

// reconcileUntilIdle has a new process look at the schedule, until nothing changes any more, and
// returns the events of that.
func (w *crashTest) reconcileUntilIdle(t *testing.T) (events []string) {
	t.Helper()
	r, recorder := w.process(), record.NewFakeRecorder(1000)
	r.events = kube.NewEventsWithRecorder(recorder)
	for visits, before := 0, -1; before != w.writes; visits++ {
		if visits > 20 {
			t.Fatalf("there is no end to it: %+v", w.schedule(t).Status)
		}
		before = w.writes
		w.refresh(t)
		result, err := r.Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKey{Namespace: "team", Name: "daily"}})
		if err != nil || result.RequeueAfter < time.Millisecond {
			t.Fatal(result, err)
		}
		w.now = w.now.Add(10 * time.Second)
		for !w.makeOneReady(t, 10) {
			w.refresh(t)
		}
	}
	close(recorder.Events)
	for e := range recorder.Events {
		events = append(events, e)
	}
	return events
}

func differEvents(events []string) (n int) {
	for _, e := range events {
		if strings.Contains(e, v1alpha1.ClocksDiffer) {
			n++
		}
	}
	return n
}

// A clock that jumps forward makes everything look old. No snapshot is deleted for that, and the
// problem is reported once. It disappears when the clock is right again.
func TestAClockThatJumpsAheadRemovesNothing(t *testing.T) {
	w := newAgingTest(t)
	jump := 15 * 24 * time.Hour
	w.now, w.serverBehind = w.now.Add(jump), jump
	told := differEvents(w.reconcileUntilIdle(t)) + differEvents(w.reconcileUntilIdle(t))
	if len(w.removed) > 0 {
		t.Errorf("removed: %v", w.removed)
	}
	is := w.schedule(t).Status
	ready, differ := meta.FindStatusCondition(is.Conditions, v1alpha1.Ready), meta.FindStatusCondition(is.Conditions, v1alpha1.ClocksDiffer)
	if told != 1 || ready.Reason != v1alpha1.ClocksDiffer || differ == nil || ready.Message != differ.Message {
		t.Errorf("told %d times, %+v", told, is.Conditions)
	}
	for _, part := range []string{"2026-12-06T12:0", "2026-11-21T12:0", "NTP"} {
		if !strings.Contains(ready.Message, part) {
			t.Errorf("%q is not in %q", part, ready.Message)
		}
	}
	w.now, w.serverBehind = w.now.Add(-jump), 0
	w.reconcileUntilIdle(t)
	if is := w.schedule(t).Status; len(w.removed) > 0 || len(is.Conditions) != 3 || is.Conditions[0].Reason != v1alpha1.Scheduled {
		t.Errorf("removed: %v, %+v", w.removed, is.Conditions)
	}
}

// The same holds while the API server's time is unknown.
func TestWithoutTheTimeOfTheAPIServerNothingGoesByAge(t *testing.T) {
	w := newAgingTest(t)
	w.now, w.noServerTime = w.now.Add(15*24*time.Hour), true
	told := differEvents(w.reconcileUntilIdle(t))
	is := w.schedule(t).Status
	if len(w.removed) > 0 || told != 1 || !strings.Contains(is.Conditions[0].Message, "Date header") {
		t.Errorf("removed: %v, told %d times, %+v", w.removed, told, is.Conditions)
	}
	w.noServerTime = false
	w.reconcileUntilIdle(t)
	if is := w.schedule(t).Status; len(w.removed) != 4 || len(is.Conditions) != 3 {
		t.Errorf("removed: %v, %+v", w.removed, is.Conditions)
	}
}

// While a machine sleeps, it does not measure how time passes at the API server. The time is read
// again before a difference is reported.
func TestWhatIsKnownOfTheTimeIsRenewedBeforeItIsTold(t *testing.T) {
	w := newAgingTest(t)
	slept := 15 * 24 * time.Hour
	w.now = w.now.Add(slept)
	s := w.schedule(t)
	s.Status.LastScheduleTime = metaTime(w.now) // No run is due, which would be looked up.
	if err := w.server.Status().Update(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	w.staleBy = slept
	if told := differEvents(w.reconcileUntilIdle(t)); told > 0 || len(w.removed) != 2 {
		t.Errorf("told %d times, removed: %v", told, w.removed)
	}
}

// No snapshot is deleted if a clock jumps between the decision and the deletion.
func TestAgeIsJudgedAgainRightBeforeARemoval(t *testing.T) {
	w := newAgingTest(t)
	w.now = w.now.Add(15 * 24 * time.Hour)
	s, err := w.process().observe(t.Context(), client.ObjectKey{Namespace: "team", Name: "daily"}, false)
	if err != nil {
		t.Fatal(err)
	}
	todo := decide(s, w.now)
	s.schedule.Status.Run = nil
	gone, _ := s.expired(sameClocks(w.now))
	if len(gone) == 0 {
		t.Fatalf("nothing is old: %+v", todo)
	}
	w.serverBehind = 15 * 24 * time.Hour
	if stuck, err := w.process().deleteChildren(t.Context(), s, gone); stuck != "" || err != nil || len(w.removed) > 0 {
		t.Errorf("%s, %v, removed: %v", stuck, err, w.removed)
	}
}

// A run that was started with a wrong clock has snapshots with the time of a future run. That run
// takes its own snapshots, once, whenever processes crash.
func TestARunIsNotServedByThatOfAWrongClock(t *testing.T) {
	for _, lag := range []int{1, 3} {
		for strike := range 8 {
			w := newAgingTest(t)
			ahead := 24 * time.Hour
			w.now, w.serverBehind = w.now.Add(ahead), ahead
			w.reconcileUntilIdle(t) // That of two tomorrow begins.
			w.now, w.serverBehind = w.now.Add(-ahead), 0
			w.reconcileUntilIdle(t)
			run := "c0-uid " + formatTime(twoTomorrow)
			if w.created[run] != 1 {
				t.Fatalf("by the wrong clock were taken: %v", w.created)
			}
			w.now = twoTomorrow.Add(time.Second)
			w.failAt = w.writes + strike
			w.runUntilIdle(t, lag)
			if w.created[run] != 2 || len(w.removed) > 0 {
				t.Errorf("lag %d, write %d: taken: %v, removed: %v", lag, strike, w.created, w.removed)
			}
			for _, c := range w.schedule(t).Status.Claims {
				if c.Reason != "" || !c.LastReadyTime.After(twoTomorrow) {
					t.Errorf("%+v", c)
				}
			}
		}
	}
}

// The claim of a snapshot is read from the API server before others are deleted because of it.
func TestASnapshotOfTheSuccessorRemovesNone(t *testing.T) {
	s, claims := daily(), manyClaims(1)
	s.Spec.Retention = keepOne()
	w := newCrashTest(t, s, claims)
	late := newSnapshotFor(s, &claims[0], runAt(twoToday, twoToday))
	late.UID, late.CreationTimestamp = "late", *metaTime(twoToday)
	late.Status = &snapshotv1.VolumeSnapshotStatus{ReadyToUse: ptr.To(true), CreationTime: metaTime(beforeNoon(time.Minute))}
	if err := w.server.Create(t.Context(), late); err != nil {
		t.Fatal(err)
	}
	w.refresh(t) // The cache shows the claim that is gone.
	claim := &corev1.PersistentVolumeClaim{}
	if err := w.server.Get(t.Context(), client.ObjectKey{Namespace: "team", Name: "c0"}, claim); err != nil {
		t.Fatal(err)
	}
	if err := w.server.Delete(t.Context(), claim); err != nil {
		t.Fatal(err)
	}
	heir := boundClaim("c0")
	heir.UID, heir.CreationTimestamp = "heir-uid", *metaTime(beforeNoon(time.Hour))
	if err := w.server.Create(t.Context(), &heir); err != nil {
		t.Fatal(err)
	}
	request := reconcile.Request{NamespacedName: client.ObjectKeyFromObject(s)}
	believes := w.process()
	believes.expectations.setFromAPIServer(&state{schedule: snapshotKind{}.fromObject(s)}, &state{})
	if _, err := believes.Reconcile(t.Context(), request); err != nil || len(w.removed) > 0 {
		t.Errorf("%v, removed: %v", err, w.removed)
	}
	w.refresh(t)
	result, err := w.process().Reconcile(t.Context(), request)
	if err != nil || len(w.removed) > 0 || result.RequeueAfter != maxRequeueInterval {
		t.Errorf("%v, %v, removed: %v", result, err, w.removed)
	}
}
