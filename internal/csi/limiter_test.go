package csi

import (
	"context"
	"errors"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// errLate is the error of a call that timed out.
var errLate = status.Error(codes.DeadlineExceeded, "too slow")

// acquireAll starts n calls at once and returns the slots of those that may be
// sent.
func acquireAll(t *testing.T, p *limiter, n int) []*slot {
	t.Helper()
	var through []*slot
	for range n {
		s := &slot{ready: make(chan struct{})}
		p.mu.Lock()
		p.waiting = append(p.waiting, s)
		p.admit()
		p.mu.Unlock()
		select {
		case <-s.ready:
			through = append(through, s)
		default:
		}
	}
	return through
}

func TestLimiter(t *testing.T) {
	all := func(ends ...error) []error { return ends }
	tests := map[string]struct {
		ends []error // results of calls that were in flight together
		want int     // limit after that; 0 is unlimited
	}{
		"successful calls set no limit":                        {all(nil, nil, nil, nil), 0},
		"errors that arrive in time set no limit":              {all(status.Error(codes.Internal, ""), status.Error(codes.ResourceExhausted, "")), 0},
		"one timeout halves the number of calls in flight":     {all(errLate, nil, nil, nil, nil, nil, nil, nil), 4},
		"timeouts of one batch halve it once":                  {all(errLate, errLate, errLate, errLate, errLate, errLate, errLate, errLate), 4},
		"one call at a time is always allowed":                 {all(errLate), 1},
		"unavailable drivers and cancelled calls set no limit": {all(status.Error(codes.Unavailable, ""), context.Canceled), 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := &limiter{}
			for i, s := range acquireAll(t, p, len(tt.ends)) {
				p.release(s, tt.ends[i])
			}
			if got := int(p.limit); got != tt.want {
				t.Errorf("the limit is %d, want %d", got, tt.want)
			}
		})
	}
}

func TestALimitGrowsByOneForEachFullBatchOfCalls(t *testing.T) {
	p := &limiter{limit: 4}
	if n := len(acquireAll(t, p, 3)); n != 3 {
		t.Fatalf("%d got a slot", n)
	}
	idle := &limiter{limit: 4}
	for range 10 {
		idle.release(acquireAll(t, idle, 1)[0], nil)
	}
	if idle.limit != 4 {
		t.Errorf("a limit that was never reached grew to %v", idle.limit)
	}
	busy := &limiter{limit: 4}
	running := acquireAll(t, busy, 20)
	if len(running) != 4 {
		t.Fatalf("%d got a slot", len(running))
	}
	for _, s := range running {
		busy.release(s, nil)
	}
	if busy.limit < 4.9 || busy.limit > 5 {
		t.Errorf("after a round of 4 the limit is %v", busy.limit)
	}
}

func TestACancelledCallFreesItsSlot(t *testing.T) {
	p := &limiter{limit: 1}
	running, err := p.acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	gone, leave := context.WithCancel(t.Context())
	leave()
	if _, err := p.acquire(gone); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	p.release(running, nil)
	if _, err := p.acquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(p.waiting) != 0 || p.running != 1 {
		t.Errorf("%d wait and %d run", len(p.waiting), p.running)
	}
}
