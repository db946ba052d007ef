package schedule

import (
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

func TestRestsAreFourTimesAsLong(t *testing.T) {
	large, small := client.ObjectKey{Name: "large"}, client.ObjectKey{Name: "small"}
	r := &debouncer{}
	if left := r.remaining(large, noon); left > 0 {
		t.Errorf("it rests for %s though nobody was there", left)
	}
	r.start(small, noon.Add(-10*time.Millisecond), noon)
	r.start(large, noon.Add(-time.Second), noon)
	if a, b := r.remaining(small, noon), r.remaining(large, noon); a != 40*time.Millisecond || b != 4*time.Second {
		t.Errorf("they rest for %s and %s", a, b)
	}
	r.start(large, noon.Add(-time.Hour), noon.Add(time.Second))
	if left := r.remaining(large, noon.Add(time.Second)); left != maxDebounce {
		t.Errorf("it rests for %s", left)
	}
	if len(r.until) != 1 {
		t.Errorf("%v: what is over is remembered", r.until)
	}
}

func TestWhatIsBeyondTheCache(t *testing.T) {
	s, again := snapshotKind{}.fromObject(daily()), snapshotKind{}.fromObject(daily())
	again.UID = "made-anew"
	one, two := snapshotAt(noon), snapshotAt(daysAgo(1))
	b := &expectations{}
	in := func(snapshots ...*childState) *state { return &state{schedule: s, children: snapshots} }
	if b.satisfied(in(one)) {
		t.Error("a cache is believed before anybody has looked")
	}
	b.setFromAPIServer(in(one, two), in(one))
	if b.satisfied(in(one)) {
		t.Error("a cache is believed that lacks what was seen")
	}
	if !b.satisfied(in(one, two)) || !b.satisfied(in(one)) {
		t.Error("a cache that has shown all that was seen is not believed")
	}
	b.expect(s.key(), "new")
	if b.satisfied(in(one, two)) {
		t.Error("a cache is believed that lacks what was made")
	}
	b.setFromAPIServer(in(one), in(one)) // Somebody has removed it before it was shown.
	if !b.satisfied(in(one)) || b.satisfied(&state{schedule: again}) {
		t.Error("only of a schedule that has been looked at the cache is believed")
	}
	b.delete(s.key())
	if len(b.bySchedule) > 0 {
		t.Error("a schedule that is gone is remembered")
	}
}

// Reports rest, but not what is to be done: a claim whose turn comes does not wait
// for the end of a rest.
func TestWhatIsToBeDoneDoesNotWaitForAReport(t *testing.T) {
	w := newDueTest(t)
	r, request := w.process(), reconcile.Request{NamespacedName: client.ObjectKey{Namespace: "team", Name: "daily"}}
	visit := func() time.Duration {
		t.Helper()
		w.refresh(t)
		result, err := r.Reconcile(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		return result.RequeueAfter
	}
	visit() // Two are taken.
	r.statusDebounce.start(request.NamespacedName, w.now.Add(-time.Second), w.now)
	before := w.writes
	if left := visit(); left != 4*time.Second || w.writes > before {
		t.Errorf("in a rest there were %d writes, and it lasts %s", w.writes-before, left)
	}
	w.makeOneReady(t, 2)
	if visit(); len(w.created) != 3 {
		t.Errorf("taken: %v", w.created)
	}
}
