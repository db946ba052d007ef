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

// A way is how a point is struck.
type way struct {
	name  string
	early bool // before the work is done, else after it
	kills bool // the process dies
	loses bool // the process lives and gets no answer
}

var deaths = []way{
	{name: "killed before", early: true, kills: true},
	{name: "killed after", kills: true},
	{name: "answer lost at", loses: true},
}

// A strike is what one run is about; the zero value is a run without a fault.
type strike struct {
	at  point // where the process is struck; "" for nowhere
	way way
	// turn is where the world takes the scenario's turn; "" for nowhere. If it
	// is where the process is killed too, it is dead at that time.
	turn point
}

// label names a strike, in a way that suits -run; turn says what happens there.
func (s strike) label(turn string) string {
	switch {
	case s.at == "" && s.turn == "":
		return "no fault"
	case s.turn == "":
		return fmt.Sprintf("%s %s", s.way.name, s.at)
	case s.at == "":
		return fmt.Sprintf("%s before %s", turn, s.turn)
	case s.at == s.turn:
		return fmt.Sprintf("%s, %s %s", turn, s.way.name, s.at)
	default:
		return fmt.Sprintf("%s before %s, %s %s", turn, s.turn, s.way.name, s.at)
	}
}

// A blow is what happens at one point: the scenario's turn, a strike, or both.
type blow struct {
	way
	turn bool
	last bool // the run has no other
}

// trace is what the controllers of one stage did in one run.
type trace struct {
	mu     sync.Mutex
	armed  strike
	state  struckState
	counts map[string]int
	points []point
	lines  []string
	began  time.Time
	last   time.Time // of the newest line
}

type struckState int

const (
	notStruck struckState = iota
	striking              // it is happening: the fresh process is not there yet
	struck
)

// arm begins a run.
func (t *trace) arm(s strike) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.armed, t.state, t.counts, t.points, t.lines = s, notStruck, map[string]int{}, nil, nil
	t.began, t.last = time.Now(), time.Now()
}

// arrive gives what has come its number. It returns what is to happen there, nil
// for nothing; then the caller says when it has happened.
func (t *trace) arrive(what string) *blow {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.counts == nil {
		return nil // Before the first run.
	}
	t.counts[what]++
	p := point(fmt.Sprintf("%s %d", what, t.counts[what]))
	t.points = append(t.points, p)
	t.write("%s", p)
	switch p {
	case t.armed.at:
		t.state = striking
		return &blow{way: t.armed.way, turn: p == t.armed.turn, last: true}
	case t.armed.turn:
		t.state = striking
		return &blow{way: way{early: true}, turn: true, last: t.armed.at == ""}
	default:
		return nil
	}
}

// happened says that a blow is over.
func (t *trace) happened(b *blow) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.state = notStruck
	if b.last {
		t.state = struck
	}
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
	return t.state != striking && time.Since(t.last) >= pause
}

// seen are the points of the run so far, and whether it was struck.
func (t *trace) seen() ([]point, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.points), t.state == struck
}

func (t *trace) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(t.lines, "\n")
}
