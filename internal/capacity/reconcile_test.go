package capacity

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	storagev1 "k8s.io/api/storage/v1"
	"sigs.k8s.io/controller-runtime/pkg/handler"
)

var fastInA = pair{"fast", "zone=a"}

func TestReconcile(t *testing.T) {
	named := options().object(&state{pair: fastInA}).Name
	unlabelled := func() *storagev1.CSIStorageCapacity {
		o := object(named, "fast", "a", 1)
		o.Labels = nil
		return o
	}
	tests := map[string]struct {
		pair   pair
		change func(*fixture)
		want   []string // published
		writes []string
		polls  bool // another poll is scheduled
	}{
		"a pair gets its object": {fastInA, func(*fixture) {}, []string{"fast zone=a 100"}, []string{"create"}, true},
		"an object that is up to date stays": {fastInA, func(w *fixture) { w.put(object("x", "fast", "a", 100)) },
			[]string{"fast zone=a 100"}, nil, true},
		"an object is updated": {fastInA, func(w *fixture) { w.put(object("x", "fast", "a", 7)) },
			[]string{"fast zone=a 100"}, []string{"update x"}, true},
		"of two objects of the same age one stays": {fastInA, func(w *fixture) { w.put(object("y", "fast", "a", 100)); w.put(object("x", "fast", "a", 100)) },
			[]string{"fast zone=a 100"}, []string{"delete y"}, true},
		"of two objects the older stays": {fastInA, func(w *fixture) {
			late := object("a", "fast", "a", 100)
			late.CreationTimestamp.Time = time.Unix(9, 0)
			w.put(late)
			w.put(object("x", "fast", "a", 100))
		}, []string{"fast zone=a 100"}, []string{"delete a"}, true},
		"an object of a missing segment is deleted": {pair{"fast", "zone=b"}, func(w *fixture) { w.put(object("x", "fast", "b", 100)) },
			nil, []string{"delete x"}, false},
		"an object of a missing class is deleted": {pair{"slow", "zone=a"}, func(w *fixture) { w.put(object("x", "slow", "a", 100)) },
			nil, []string{"delete x"}, false},
		"an object is deleted if the driver has no GET_CAPACITY": {fastInA, func(w *fixture) {
			w.put(object("x", "fast", "a", 100))
			w.hasGetCapacity = func() bool { return false }
		}, nil, []string{"delete x"}, false},
		"a missing class and a missing segment": {pair{"slow", "zone=b"}, func(*fixture) {}, nil, nil, false},
		"a name that is taken is replaced by a generated one": {fastInA, func(w *fixture) {
			w.put(unlabelled())
			w.byPair = map[string][]string{} // The cache has only objects with our labels.
		}, []string{"fast zone=a 1", "fast zone=a 100"}, []string{"create"}, true},
		"an object that is not in the cache yet is not created twice": {fastInA, func(w *fixture) {
			w.put(object(named, "fast", "a", 100))
			w.byPair = map[string][]string{}
		}, []string{"fast zone=a 100"}, nil, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newFixture(append(node("n1", "a"), class("fast"))...)
			tt.change(w)
			result, err := w.Reconcile(t.Context(), tt.pair)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, w.published()); diff != "" {
				t.Errorf("published: %s", diff)
			}
			if diff := cmp.Diff(tt.writes, w.writes); diff != "" {
				t.Errorf("written: %s", diff)
			}
			if polls := result.RequeueAfter > 0; polls != tt.polls || result.RequeueAfter > time.Minute {
				t.Errorf("it is polled after %s", result.RequeueAfter)
			}
			if asked := len(w.requests) > 0; asked != tt.polls {
				t.Errorf("the driver got %v", w.requests)
			}
			if *result.Priority != handler.LowPriority {
				t.Errorf("a poll has priority %d, want low priority", *result.Priority)
			}
		})
	}
}

func TestAFailedGetCapacityChangesNothing(t *testing.T) {
	w := newFixture(append(node("n1", "a"), class("fast"), object("x", "fast", "a", 7), object("y", "fast", "a", 7))...)
	w.err = errors.New("the array is down")
	if _, err := w.Reconcile(t.Context(), fastInA); !errors.Is(err, w.err) {
		t.Errorf("got %v", err)
	}
	if w.writes != nil {
		t.Errorf("written: %q", w.writes)
	}
}

func TestAConflictIsRetriedSoon(t *testing.T) {
	w := newFixture(append(node("n1", "a"), class("fast"))...)
	late, err := w.update(t.Context(), object("x", "fast", "a", 7), object("x", "fast", "a", 100))
	if err != nil || !late {
		t.Errorf("a deleted object: %t, %v", late, err)
	}
	w.put(object("x", "fast", "a", 7))
	stale := object("x", "fast", "a", 100)
	stale.ResourceVersion = "0"
	if late, err = w.update(t.Context(), stale, stale); err != nil || !late {
		t.Errorf("a changed object: %t, %v", late, err)
	}
}

func TestCounts(t *testing.T) {
	objects := append(node("n1", "a"), node("n2", "b")...)
	objects = append(objects, class("fast"), class("slow"),
		object("fast-a", "fast", "a", 1), object("double", "fast", "a", 1), object("slow-b", "slow", "b", 1), object("fast-c", "fast", "c", 1))
	got, err := newFixture(objects...).counts(t.Context())
	if want := (counts{goal: 4, current: 2, obsolete: 2}); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}
