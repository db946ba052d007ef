package crash

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// A point is a moment at which a process can die: its n-th write of a kind to
// the API server, as in "POST leases 1", or its n-th call of a kind to the
// driver, as in "CreateVolume 2". Counting by kind keeps the names when things
// happen in another order.
type point string

// A blow is what happens at one point: the scenario's turn, a strike, or both.
type blow struct {
	way
	turn bool
}

// trace is what the controllers of one stage did in one run.
type trace struct {
	mu      sync.Mutex
	armed   strike
	due     int    // blows that are to come
	open    int    // blows that are happening: a fresh process is not there yet
	subject string // of the call whose repetition is to be struck; "" for none
	counts  map[string]int
	points  []point
	lines   []string
	began   time.Time
	last    time.Time // of the newest line
}

// arm begins a run.
func (t *trace) arm(s strike) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.armed, t.due, t.subject, t.counts, t.points, t.lines = s, s.blows(), "", map[string]int{}, nil, nil
	t.began, t.last = time.Now(), time.Now()
}

// arrive gives what has come its number; subject is what a call is about. It
// returns what is to happen there, nil for nothing; then the caller says when it
// has happened.
func (t *trace) arrive(what, subject string) *blow {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.counts == nil {
		return nil // Before the first run.
	}
	t.counts[what]++
	p := point(fmt.Sprintf("%s %d", what, t.counts[what]))
	t.points = append(t.points, p)
	t.write("%s", p)
	hit := t.blowAt(p, subject)
	if hit != nil {
		t.due--
		t.open++
	}
	return hit
}

func (t *trace) blowAt(p point, subject string) *blow {
	switch {
	case p == t.armed.at:
		if t.armed.again.name != "" {
			t.subject = subject
		}
		return &blow{way: t.armed.way, turn: p == t.armed.turn}
	case subject != "" && subject == t.subject:
		t.subject = ""
		return &blow{way: t.armed.again, turn: t.armed.turn == repeated}
	case p == t.armed.turn:
		return &blow{way: way{early: true}, turn: true}
	default:
		return nil
	}
}

// happened says that a blow is over.
func (t *trace) happened(b *blow) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open--
	t.write("  that was it: %s", cmp.Or(b.name, "the turn"))
}

// note adds to the story of the run.
func (t *trace) note(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.write("  "+format, args...)
}

func (t *trace) write(format string, args ...any) {
	t.last = time.Now()
	t.lines = append(t.lines, fmt.Sprintf("%7.3f ", time.Since(t.began).Seconds())+fmt.Sprintf(format, args...))
}

// calm tells whether nothing has happened for that long, and nothing is happening.
func (t *trace) calm(pause time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.open == 0 && time.Since(t.last) >= pause
}

// quiet tells whether nothing has come for that long.
func (t *trace) quiet(pause time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return time.Since(t.last) >= pause
}

// seen are the points of the run so far, and whether all its blows were struck.
func (t *trace) seen() ([]point, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.points), t.due == 0 && t.open == 0
}

func (t *trace) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(t.lines, "\n")
}
