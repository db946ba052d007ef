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

// acquireAll starts n calls about a target at once and returns the slots of those that
// may be sent.
func acquireAll(t *testing.T, p *limiter, n int, about ...target) []*slot {
	t.Helper()
	var through []*slot
	for range n {
		s := p.enqueue(about)
		select {
		case err := <-s.ready:
			if err == nil {
				through = append(through, s)
			}
		default:
		}
	}
	return through
}

// limitedTo returns a limiter whose limit is n.
func limitedTo(n float64) *limiter {
	p := newLimiter(bounds{})
	p.all.limit = n
	return p
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
			p := newLimiter(bounds{})
			for i, s := range acquireAll(t, p, len(tt.ends)) {
				p.release(s, tt.ends[i])
			}
			if got := int(p.all.limit); got != tt.want {
				t.Errorf("the limit is %d, want %d", got, tt.want)
			}
		})
	}
}

func TestALimitGrowsByOneForEachFullBatchOfCalls(t *testing.T) {
	p := limitedTo(4)
	if n := len(acquireAll(t, p, 3)); n != 3 {
		t.Fatalf("%d got a slot", n)
	}
	idle := limitedTo(4)
	for range 10 {
		idle.release(acquireAll(t, idle, 1)[0], nil)
	}
	if idle.all.limit != 4 {
		t.Errorf("a limit that was never reached grew to %v", idle.all.limit)
	}
	busy := limitedTo(4)
	running := acquireAll(t, busy, 20)
	if len(running) != 4 {
		t.Fatalf("%d got a slot", len(running))
	}
	for _, s := range running {
		busy.release(s, nil)
	}
	if busy.all.limit < 4.9 || busy.all.limit > 5 {
		t.Errorf("after a round of 4 the limit is %v", busy.all.limit)
	}
}

func TestACancelledCallFreesItsSlot(t *testing.T) {
	p := limitedTo(1)
	running, err := p.acquire(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	gone, leave := context.WithCancel(t.Context())
	leave()
	if _, err := p.acquire(gone, nil); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	p.release(running, nil)
	if _, err := p.acquire(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if len(p.waiting) != 0 || p.all.running != 1 || p.all.users != 1 {
		t.Errorf("%d wait, %d run, %d do either", len(p.waiting), p.all.running, p.all.users)
	}
}

// node is a target as targetOf has it.
func node(id string) target { return nodeTarget(id) }

// batch starts calls about a target and ends those that may be sent. It returns how many
// those were.
func batch(t *testing.T, p *limiter, n int, end error, about ...target) int {
	t.Helper()
	slots := acquireAll(t, p, n, about...)
	dropWaiting(p)
	for _, s := range slots {
		p.release(s, end)
	}
	return len(slots)
}

// dropWaiting removes the calls that wait.
func dropWaiting(p *limiter) {
	for len(p.waiting) > 0 {
		p.cancel(p.waiting[0])
	}
}

func TestATargetIsLimitedAlone(t *testing.T) {
	p := newLimiter(bounds{floor: 10})
	for i, want := range []int{30, 10, 10, 10} {
		if n := batch(t, p, 30, errLate, node("hung")); n != want {
			t.Errorf("batch %d of calls about the hung node: %d are sent, want %d", i, n, want)
		}
		if n := batch(t, p, 100, nil, node("well")); n != 100 {
			t.Errorf("batch %d of calls about another node: %d are sent, want all", i, n)
		}
	}
	if p.all.limit != 0 {
		t.Errorf("one node that does not answer limits all calls to %v", p.all.limit)
	}
}

func TestAllCallsAreLimitedWhenMostTargetsTimeOut(t *testing.T) {
	a, b, c, d, e := node("a"), node("b"), node("c"), node("d"), node("e")
	tests := map[string]struct {
		late, answered []target
		want           int // limit of all calls, of which 20 or less run
	}{
		"one target that times out says nothing about the driver":        {[]target{a}, nil, 0},
		"one target that goes on timing out says nothing either":         {[]target{a, a, a, a}, nil, 0},
		"two targets of five that time out do not limit the others":      {[]target{a, b}, []target{c, d, e}, 0},
		"three targets of five that time out limit all calls":            {[]target{a, b, c}, []target{d, e}, 9},
		"more timeouts of calls that were in flight together lower once": {[]target{a, b, c, d, e}, nil, 9},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := newLimiter(bounds{})
			slots := map[target][]*slot{}
			for _, about := range []target{a, b, c, d, e} {
				slots[about] = acquireAll(t, p, 4, about)
			}
			end := func(targets []target, err error) {
				for _, about := range targets {
					p.release(slots[about][0], err)
					slots[about] = append(slots[about][1:], acquireAll(t, p, 1, about)...)
				}
			}
			end(tt.answered, nil)
			end(tt.late, errLate)
			if got := int(p.all.limit); got != tt.want {
				t.Errorf("the limit of all calls is %d, want %d", got, tt.want)
			}
		})
	}
}

func TestCopiesOfManySourcesAreLimitedTogether(t *testing.T) {
	p := newLimiter(bounds{floor: 2})
	sources := func(i int) []target { return []target{{"snapshots", ""}, {string(rune('a' + i)), ""}} }
	var slots []*slot
	for i := range 20 {
		slots = append(slots, acquireAll(t, p, 1, sources(i)...)...)
	}
	for _, s := range slots {
		p.release(s, errLate)
	}
	copies := p.all.parts["snapshots"]
	if copies.limit < 2 || copies.limit > 10 {
		t.Errorf("20 sources that time out: at most %v of their calls at a time", copies.limit)
	}
	if n := batch(t, p, 50, nil, target{"class", ""}); n != 50 {
		t.Errorf("%d of 50 calls about plain volumes are sent", n)
	}
}

func TestALimitIsWithinItsBounds(t *testing.T) {
	p := newLimiter(bounds{floor: 10, ceiling: 50})
	if n := batch(t, p, 60, errLate); n != 50 {
		t.Errorf("%d calls are in flight, want the 50 of the ceiling", n)
	}
	for range 10 {
		batch(t, p, 60, errLate)
	}
	if got := int(p.all.limit); got != 10 {
		t.Errorf("after many timeouts the limit is %d, want the floor of 10", got)
	}
}

func TestASlotGoesToTheTargetWithTheFewestCalls(t *testing.T) {
	p := limitedTo(4)
	many := acquireAll(t, p, 4, node("many"))
	waiting := p.enqueue([]target{node("many")})
	first := p.enqueue([]target{node("few")})
	p.release(many[0], nil)
	if len(first.ready) == 0 {
		t.Error("a node with three calls in flight gets a slot before one that has none")
	}
	if len(waiting.ready) != 0 {
		t.Error("there are more calls in flight than the limit")
	}
}

func TestCallsThatWaitForASilentTargetAreRejected(t *testing.T) {
	p := newLimiter(bounds{floor: 2})
	running := acquireAll(t, p, 8, node("hung"))
	p.release(running[0], errLate)
	err := <-p.enqueue([]target{node("hung")}).ready
	if status.Code(err) != codes.Unavailable {
		t.Errorf("a call that would wait for a node that does not answer: %v", err)
	}
	if p.all.users != 7 {
		t.Errorf("%d calls run or wait, want 7", p.all.users)
	}
	p.release(running[1], nil)
	if len(p.enqueue([]target{node("hung")}).ready) != 0 {
		t.Error("a call about a node that answers again does not wait for its turn")
	}
}

func TestTargetsAreForgotten(t *testing.T) {
	p := newLimiter(bounds{})
	batch(t, p, 1, errLate, node("hung"))
	kept := acquireAll(t, p, 1, node("busy"))
	for i := range 10 * maxTargets {
		batch(t, p, 1, nil, node(string(rune(i))))
	}
	if n := len(p.all.parts); n > maxTargets {
		t.Errorf("%d targets are remembered", n)
	}
	if p.all.find([]target{node("hung")}).limit == 0 || p.all.parts[node("busy").key] != kept[0].scope {
		t.Error("a target with calls in flight, or one that does not answer, is forgotten")
	}
}
