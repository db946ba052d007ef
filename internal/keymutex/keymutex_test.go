package keymutex

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// patience bounds waits for something that must happen; it is never used up
// unless it does not.
const patience = 30 * time.Second

func TestOneCallAtATimeForEachKey(t *testing.T) {
	var o KeyMutex
	var running, most [2]atomic.Int32
	var all sync.WaitGroup
	for i := range 200 {
		key := i % 2
		all.Go(func() {
			release, err := o.Lock(t.Context(), []string{"a", "b"}[key])
			if err != nil {
				t.Error(err)
				return
			}
			if now := running[key].Add(1); now > most[key].Load() {
				most[key].Store(now)
			}
			running[key].Add(-1)
			release()
		})
	}
	all.Wait()
	if most[0].Load() != 1 || most[1].Load() != 1 {
		t.Errorf("%d and %d calls at a time", most[0].Load(), most[1].Load())
	}
	if len(o.turns) != 0 {
		t.Errorf("%d keys are remembered although nobody uses them", len(o.turns))
	}
}

func TestWaitingEndsWithItsContext(t *testing.T) {
	var o KeyMutex
	release, err := o.Lock(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() {
		_, err := o.Lock(ctx, "a")
		failed <- err
	}()
	cancel()
	select {
	case err := <-failed:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	case <-time.After(patience):
		t.Fatal("it still waits")
	}
	for range 50 { // a choice between two ready channels is a random one
		if _, err := o.Lock(ctx, "free"); !errors.Is(err, context.Canceled) {
			t.Fatalf("a call that is already given up got its turn: %v", err)
		}
	}
	release()
	if len(o.turns) != 0 {
		t.Errorf("%d keys are remembered although nobody uses them", len(o.turns))
	}
}
