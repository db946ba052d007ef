package checkpoints

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// A point is a moment at which a fault can be injected: the n-th of its kind, as in
// "operator PATCH checkpoints/status 1", "agent engine Frozen 1" or "agent store Commit 2".
type point string

// An injection is what one run tests; the zero value is a run without a fault.
type injection struct {
	at    point // of the fault; "" for none
	fault fault
	// disruption is the point of the scenario's disruption; "" for none. If the process is
	// killed there too, it is dead during the disruption.
	disruption point
}

// label names an injection for -run.
func (s injection) label(disruption string) string {
	var parts []string
	switch {
	case s.disruption != "" && s.disruption == s.at:
		parts = append(parts, disruption)
	case s.disruption != "":
		parts = append(parts, fmt.Sprintf("%s before %s", disruption, s.disruption))
	}
	if s.at != "" {
		parts = append(parts, fmt.Sprintf("%s %s", s.fault.name, s.at))
	}
	return cmp.Or(strings.Join(parts, ", "), "no fault")
}

// An injectedFault is what happens at one point: a fault, the disruption, or both.
type injectedFault struct {
	fault
	disrupts bool
}

// trace records what the processes of an environment do in one run.
type trace struct {
	mu       sync.Mutex
	plan     injection
	pending  int // faults to be injected
	active   int // faults that are being injected
	counts   map[string]int
	points   []point
	lines    []string
	started  time.Time
	lastLine time.Time // when the newest line was written
}

// start starts a run.
func (t *trace) start(s injection) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.plan, t.counts, t.points, t.lines, t.pending = s, map[string]int{}, nil, nil, 0
	if s.at != "" {
		t.pending++
	}
	if s.disruption != "" && s.disruption != s.at {
		t.pending++
	}
	t.started, t.lastLine = time.Now(), time.Now()
}

// stop ends a run: what follows has no points.
func (t *trace) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts = nil
}

// record gives a request or a call its number. It returns the fault to inject, or nil. The
// caller must call faultDone afterwards.
func (t *trace) record(what string) *injectedFault {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.counts == nil {
		return nil // Between two runs.
	}
	t.counts[what]++
	p := point(fmt.Sprintf("%s %d", what, t.counts[what]))
	t.points = append(t.points, p)
	t.write("%s", p)
	var hit *injectedFault
	switch p {
	case t.plan.at:
		hit = &injectedFault{t.plan.fault, p == t.plan.disruption}
	case t.plan.disruption:
		hit = &injectedFault{fault{before: true}, true}
	default:
		return nil
	}
	t.pending--
	t.active++
	return hit
}

func (t *trace) faultDone(hit *injectedFault) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.active--
	t.write("  injected: %s", cmp.Or(hit.name, "the disruption"))
}

// note adds a line to the run's log.
func (t *trace) note(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.write("  "+format, args...)
}

// log adds a line that is no activity.
func (t *trace) log(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lines = append(t.lines, fmt.Sprintf("%7.3f   %s", time.Since(t.started).Seconds(), line))
}

func (t *trace) write(format string, args ...any) {
	t.lastLine = time.Now()
	t.lines = append(t.lines, fmt.Sprintf("%7.3f ", time.Since(t.started).Seconds())+fmt.Sprintf(format, args...))
}

// isIdle reports whether nothing has happened for that long, and no fault is active.
func (t *trace) isIdle(pause time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.active == 0 && time.Since(t.lastLine) >= pause
}

// result returns the points of the run so far, and whether all faults were injected.
func (t *trace) result() ([]point, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.points), t.pending == 0
}

func (t *trace) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(t.lines, "\n")
}
