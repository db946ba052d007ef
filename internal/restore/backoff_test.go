package restore

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/archive"
	"github.com/holdfast-io/holdfast/internal/runtime"
	"github.com/holdfast-io/holdfast/internal/store"
)

// A fetch that fails is tried with longer and longer pauses, whatever happens to the pod
// meanwhile, and the pod is written when something is new, not when it is tried.
func TestAFailingFetchIsTriedLessAndLess(t *testing.T) {
	n := newSweptNode(t, true)
	n.fault.at, n.unreachable = -1, true
	n.startAgent()
	n.agent.backoff.start, n.agent.backoff.most = time.Second, 5*time.Second
	at := time.Now()
	n.agent.now = func() time.Time { return at }
	reconcileOnce := func() time.Duration {
		result, err := n.agent.Reconcile(t.Context(), reconcile.Request{NamespacedName: podKey})
		if err != nil {
			t.Fatal(err)
		}
		return result.RequeueAfter
	}
	var pauses []time.Duration
	for range 5 {
		pause := reconcileOnce()
		pauses = append(pauses, pause)
		at = at.Add(pause - time.Millisecond)
		reconcileOnce() // as if the pod had changed
		at = at.Add(time.Millisecond)
	}
	if want := []time.Duration{1e9, 2e9, 4e9, 5e9, 5e9}; !slices.Equal(pauses, want) {
		t.Errorf("the pauses are %v, want %v", pauses, want)
	}
	count := func(call string) (times int) {
		for _, c := range n.calls {
			if c == call {
				times++
			}
		}
		return times
	}
	if opened, written := count("open"), count("patch *v1.Pod"); opened != 5 || written != 2 {
		t.Errorf("the archive was opened %d times and the pod written %d times, want 5 and 2", opened, written)
	}
	if c := conditionOf(n.pod()); c == nil || c.Reason != v1alpha1.ReasonStorageUnreachable {
		t.Errorf("the condition is %+v", c)
	}
	n.unreachable = false
	for !isRestored(n.pod()) {
		at = at.Add(reconcileOnce())
		n.kubelet()
	}
}

func TestAnotherRequestDoesNotWait(t *testing.T) {
	n := newSweptNode(t, true)
	b := newBackoff(&Options{RetryStart: time.Second, RetryMax: time.Minute})
	s := &state{pod: n.pod(), request: "c"}
	b.failed(s, now)
	if wait, failed := b.pause(s, now); wait != time.Second || !failed {
		t.Errorf("after a failure the pause is %s", wait)
	}
	other := &state{pod: n.pod(), request: "d"}
	if wait, failed := b.pause(other, now); wait != 0 || failed {
		t.Errorf("another request waits for %s", wait)
	}
	b.forget(podKey)
	if wait, failed := b.pause(s, now); wait != 0 || failed {
		t.Errorf("a request whose failures are forgotten waits for %s", wait)
	}
}

func TestProblemOf(t *testing.T) {
	tests := map[string]struct {
		err       error
		reason    string
		temporary bool
	}{
		"a store that does not answer may do so later": {store.ErrUnavailable, v1alpha1.ReasonStorageUnreachable, true},
		"an error that nobody knows may pass":          {errInjected, v1alpha1.ReasonStorageUnreachable, true},
		"room may become free":                         {errNoRoom, string(runtime.InsufficientNodeDisk), true},
		"a missing object never comes back":            {store.ErrNotFound, v1alpha1.ReasonRestoreFailed, false},
		"a damaged archive is never whole again":       {archive.ErrDamaged, v1alpha1.ReasonRestoreFailed, false},
		"what is no archive never becomes one":         {archive.ErrFormat, v1alpha1.ReasonRestoreFailed, false},
		"the archive of another container is no use":   {archive.ErrIdentity, v1alpha1.ReasonRestoreFailed, false},
		"a store that denies access":                   {store.ErrDenied, v1alpha1.ReasonStorageDenied, false},
		"a store that does not exist":                  {store.ErrInvalid, v1alpha1.ReasonStorageInvalid, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := problemOf(fmt.Errorf("fetching: %w", tt.err))
			if p.reason != tt.reason || p.temporary != tt.temporary {
				t.Errorf("problemOf() = %+v", p)
			}
		})
	}
	if p := problemOf(nil); p != nil {
		t.Errorf("problemOf(nil) = %+v", p)
	}
}
