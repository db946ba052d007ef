package keymutex

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// timeout bounds waits for something that must happen.
const timeout = 30 * time.Second

func TestOneHolderPerKey(t *testing.T) {
	var m KeyMutex
	var running, most [2]atomic.Int32
	var all sync.WaitGroup
	for i := range 200 {
		key := i % 2
		all.Go(func() {
			unlock, err := m.Lock(t.Context(), []string{"a", "b"}[key])
			if err != nil {
				t.Error(err)
				return
			}
			if now := running[key].Add(1); now > most[key].Load() {
				most[key].Store(now)
			}
			running[key].Add(-1)
			unlock()
		})
	}
	all.Wait()
	if most[0].Load() != 1 || most[1].Load() != 1 {
		t.Errorf("%d and %d concurrent holders", most[0].Load(), most[1].Load())
	}
	if len(m.entries) != 0 {
		t.Errorf("%d unused keys are kept", len(m.entries))
	}
}

func TestLockReturnsWhenItsContextEnds(t *testing.T) {
	var m KeyMutex
	unlock, err := m.Lock(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() {
		_, err := m.Lock(ctx, "a")
		failed <- err
	}()
	cancel()
	select {
	case err := <-failed:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	case <-time.After(timeout):
		t.Fatal("Lock did not return")
	}
	for range 50 { // select chooses at random between two ready channels
		if _, err := m.Lock(ctx, "free"); !errors.Is(err, context.Canceled) {
			t.Fatalf("Lock with a context that has ended returned %v", err)
		}
	}
	unlock()
	if len(m.entries) != 0 {
		t.Errorf("%d unused keys are kept", len(m.entries))
	}
}
