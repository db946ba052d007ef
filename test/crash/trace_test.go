package crash

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/internal/csi"
)

// A point is a moment at which a fault can be injected: a process's n-th write of a
// kind to the API server, as in "POST leases 1", or its n-th call of a kind to the
// driver, as in "CreateVolume 2". Counting by kind keeps the names if the order
// changes.
type point string

// An injectedFault is what happens at one point: a fault, the scenario's disruption,
// or both.
type injectedFault struct {
	fault
	disrupts bool
}

// trace records what the processes of an environment do in one run.
type trace struct {
	mu       sync.Mutex
	plan     injection
	pending  int    // faults to be injected
	active   int    // faults that are being injected: a new process may not run yet
	subject  string // of the call whose retry gets a fault; "" for none
	counts   map[string]int
	points   []point
	lines    []string
	started  time.Time
	lastLine time.Time // of the newest line
}

// start starts a run.
func (t *trace) start(s injection) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.plan, t.pending, t.subject, t.counts, t.points, t.lines = s, s.countFaults(), "", map[string]int{}, nil, nil
	t.started, t.lastLine = time.Now(), time.Now()
}

// record gives a request its number; subject is the object of a call. It returns the
// fault to inject, or nil. The caller must call faultDone afterwards.
func (t *trace) record(what, subject string) *injectedFault {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.counts == nil {
		return nil // Before the first run.
	}
	t.counts[what]++
	p := point(fmt.Sprintf("%s %d", what, t.counts[what]))
	t.points = append(t.points, p)
	t.write("%s", p)
	hit := t.faultAt(p, subject)
	if hit != nil {
		t.pending--
		t.active++
	}
	return hit
}

func (t *trace) faultAt(p point, subject string) *injectedFault {
	switch {
	case p == t.plan.at:
		if t.plan.retryFault.name != "" {
			t.subject = subject
		}
		return &injectedFault{fault: t.plan.fault, disrupts: p == t.plan.disruption}
	case subject != "" && subject == t.subject:
		t.subject = ""
		return &injectedFault{fault: t.plan.retryFault, disrupts: t.plan.disruption == retryPoint}
	case p == t.plan.disruption:
		return &injectedFault{fault: fault{before: true}, disrupts: true}
	default:
		return nil
	}
}

// faultDone ends an injected fault.
func (t *trace) faultDone(b *injectedFault) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.active--
	t.write("  injected: %s", cmp.Or(b.name, "the disruption"))
}

// note adds a line to the run's log.
func (t *trace) note(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.write("  "+format, args...)
}

func (t *trace) write(format string, args ...any) {
	t.lastLine = time.Now()
	t.lines = append(t.lines, fmt.Sprintf("%7.3f ", time.Since(t.started).Seconds())+fmt.Sprintf(format, args...))
}

// count returns how often the driver was called in the run so far.
func (t *trace) count(method csi.Method) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.counts[string(method)]
}

// isIdle reports whether nothing has happened for that long, and no fault is active.
func (t *trace) isIdle(pause time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.active == 0 && time.Since(t.lastLine) >= pause
}

// isSilent reports whether nothing has happened for that long.
func (t *trace) isSilent(pause time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return time.Since(t.lastLine) >= pause
}

// result returns the points of the run so far, and whether all faults were injected.
func (t *trace) result() ([]point, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.points), t.pending == 0 && t.active == 0
}

func (t *trace) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(t.lines, "\n")
}
