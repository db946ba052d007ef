package provision

import (
	"math/rand/v2"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// A race settles which of many nodes takes a claim that each could: all wait
// for a random time, and the first one that has room writes its name on the
// claim. The API server lets one of them.
//
// What it remembers only spreads the tries. A process that starts again begins
// with the shortest pauses.
type race struct {
	base, max time.Duration
	now       func() time.Time
	random    func() float64 // at least 0 and below 1

	mu     sync.Mutex
	runs   map[types.UID]*run
	sweeps int // how many runs there may be until those are dropped that are over
}

// A run is one claim's race as this node has it.
type run struct {
	tries   int
	due     time.Time // of the next try; zero while the claim is somebody's
	touched time.Time
}

// sweepFrom is how many runs are kept before anybody looks which are over.
const sweepFrom = 1024

func newRace(n *Node) *race {
	return &race{base: n.BaseDelay, max: n.MaxDelay, now: time.Now, random: rand.Float64, runs: map[types.UID]*run{}, sweeps: sweepFrom}
}

// pause is how long to wait before a try. It is random below a ceiling that
// doubles with each try that came before, up to longest.
func pause(base, longest time.Duration, tries int, random float64) time.Duration {
	return time.Duration(random * float64(ceiling(base, longest, tries)))
}

func ceiling(base, longest time.Duration, tries int) time.Duration {
	for range tries {
		if base >= longest/2 {
			return longest
		}
		base *= 2
	}
	return min(base, longest)
}

// left is how long this node has to wait before it may try to take a claim.
func (r *race) left(claim types.UID) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	one := r.run(claim)
	if one.due.IsZero() {
		one.due = r.now().Add(pause(r.base, r.max, one.tries, r.random()))
	}
	return max(0, one.due.Sub(r.now()))
}

// tried ends a try and says when the next one is, if it takes one. It has been
// long if the pause cannot get longer: by then every node has tried.
func (r *race) tried(claim types.UID) (next time.Duration, long bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	one := r.run(claim)
	long = ceiling(r.base, r.max, one.tries) == r.max && one.tries > 0
	one.tries++
	next = pause(r.base, r.max, one.tries, r.random())
	one.due = r.now().Add(next)
	return next, long
}

// settled says that somebody has the claim. If it comes back because there was
// no room after all, the pauses go on where they were.
func (r *race) settled(claim types.UID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if one := r.runs[claim]; one != nil {
		one.due = time.Time{}
	}
}

func (r *race) run(claim types.UID) *run {
	one := r.runs[claim]
	if one == nil {
		r.sweep()
		one = &run{}
		r.runs[claim] = one
	}
	one.touched = r.now()
	return one
}

// sweep drops what nobody has asked for in a long time. A claim that waits is
// looked at once in every pause.
func (r *race) sweep() {
	if len(r.runs) < r.sweeps {
		return
	}
	for claim, one := range r.runs {
		if r.now().Sub(one.touched) > 10*r.max {
			delete(r.runs, claim)
		}
	}
	r.sweeps = max(sweepFrom, 2*len(r.runs))
}
