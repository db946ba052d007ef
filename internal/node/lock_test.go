package node

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"
)

func TestAnAgentWaitsForTheEndOfAnother(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	first, err := Lock(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*lockPoll)
	defer cancel()
	if _, err := Lock(ctx, dir); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while another agent works, the lock is taken: %v", err)
	}
	locked := make(chan error)
	go func() {
		second, err := Lock(t.Context(), dir)
		if err == nil {
			err = second.Close()
		}
		locked <- err
	}()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-locked:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("the lock is not taken when the other agent has ended")
	}
}
