package runtimetest

import (
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/holdfast-io/holdfast/internal/runtime"
)

var concurrencyRows = map[string]func(*testing.T, Node){
	"a second call for a container is rejected as Busy, or waits": func(t *testing.T, node Node) {
		engine := node.Engine()
		c := node.Start("web", "main")
		started, release := node.HoldDump(c)
		defer release()
		var wait sync.WaitGroup
		wait.Go(func() {
			if _, err := engine.Checkpoint(t.Context(), "checkpoint-1", []runtime.Container{c}, runtime.Options{}); err != nil {
				t.Errorf("the first call: %v", err)
			}
		})
		<-started
		result := make(chan error)
		go func() {
			_, err := engine.Checkpoint(t.Context(), "checkpoint-2", []runtime.Container{c}, runtime.Options{})
			result <- err
		}()
		// A call that waits has no result before the first one ends.
		wait.Go(release)
		if err := <-result; err != nil {
			wantReason(t, err, runtime.Busy)
			if !runtime.IsRetryable(err) {
				t.Errorf("%v is not worth a retry", err)
			}
		}
		wait.Wait()
		wantThawed(t, node, c)
	},
	"containers of different pods are checkpointed at the same time": func(t *testing.T, node Node) {
		engine := node.Engine()
		a, b := node.Start("a", "main"), node.Start("b", "main")
		started, release := node.HoldDump(a)
		defer release()
		var wait sync.WaitGroup
		wait.Go(func() {
			if _, err := engine.Checkpoint(t.Context(), "checkpoint-a", []runtime.Container{a}, runtime.Options{}); err != nil {
				t.Errorf("checkpoint-a: %v", err)
			}
		})
		<-started
		checkpoint(t, engine, "checkpoint-b", b)
		release()
		wait.Wait()
		wantThawed(t, node, a, b)
	},
	"many calls at the same time leave nothing frozen": func(t *testing.T, node Node) {
		engine := node.Engine()
		c := node.Start("web", "main")
		var wait sync.WaitGroup
		var succeeded atomic.Int32
		for i := range 4 {
			wait.Go(func() {
				dumps, err := engine.Checkpoint(t.Context(), "checkpoint-"+strconv.Itoa(i), []runtime.Container{c}, runtime.Options{})
				if err != nil {
					wantReason(t, err, runtime.Busy)
				} else {
					succeeded.Add(1)
				}
				for _, dump := range dumps {
					discard(t, dump)
				}
			})
		}
		wait.Wait()
		if succeeded.Load() == 0 {
			t.Error("none has succeeded")
		}
		wantNothingLeft(t, node, c)
	},
	"Recover leaves a checkpoint in progress alone": func(t *testing.T, node Node) {
		engine := node.Engine()
		c := node.Start("web", "main")
		started, release := node.HoldDump(c)
		defer release()
		var wait sync.WaitGroup
		wait.Go(func() {
			dumps, err := engine.Checkpoint(t.Context(), "checkpoint-1", []runtime.Container{c}, runtime.Options{})
			if err != nil {
				t.Errorf("Checkpoint(): %v", err)
				return
			}
			wantComplete(t, readFiles(t, dumps[0], false))
		})
		<-started
		found, err := engine.Recover(t.Context())
		if err != nil || len(found) > 0 {
			t.Errorf("Recover() = %v, %v", found, err)
		}
		release()
		wait.Wait()
		wantThawed(t, node, c)
	},
}
