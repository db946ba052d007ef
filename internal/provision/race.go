package provision

import (
	"math/rand/v2"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// A Race settles which of many nodes takes a claim that each could: all wait
// for a random time, and the first one that has room writes its name on the
// claim. The API server lets one of them.
//
// What it remembers only spreads the tries. A process that starts again begins
// with the shortest pauses.
type Race struct {
	base, max time.Duration
	now       func() time.Time
	random    func() float64 // at least 0 and below 1

	mu       sync.Mutex
	attempts map[types.UID]*attempt
	pruneAt  int // how many runs there may be until those are dropped that are over
}

// A attempt is one claim's race as this node has it.
type attempt struct {
	tries   int
	due     time.Time // of the next try; zero while the claim is somebody's
	touched time.Time
}

// pruneThreshold is how many runs are kept before anybody looks which are over.
const pruneThreshold = 1024

func NewRace(n *Node) *Race {
	return &Race{base: n.BaseDelay, max: n.MaxDelay, now: time.Now, random: rand.Float64, attempts: map[types.UID]*attempt{}, pruneAt: pruneThreshold}
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

// Wait is how long this node has to wait before it may try to take a claim.
func (r *Race) Wait(claim types.UID) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	one := r.attempt(claim)
	if one.due.IsZero() {
		one.due = r.now().Add(pause(r.base, r.max, one.tries, r.random()))
	}
	return max(0, one.due.Sub(r.now()))
}

// Tried ends a try and says when the next one is, if it takes one. It has been
// long if the pause cannot get longer: by then every node has tried.
func (r *Race) Tried(claim types.UID) (next time.Duration, long bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	one := r.attempt(claim)
	long = ceiling(r.base, r.max, one.tries) == r.max && one.tries > 0
	one.tries++
	next = pause(r.base, r.max, one.tries, r.random())
	one.due = r.now().Add(next)
	return next, long
}

// Settled says that somebody has the claim. If it comes back because there was
// no room after all, the pauses go on where they were.
func (r *Race) Settled(claim types.UID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if one := r.attempts[claim]; one != nil {
		one.due = time.Time{}
	}
}

func (r *Race) attempt(claim types.UID) *attempt {
	one := r.attempts[claim]
	if one == nil {
		r.prune()
		one = &attempt{}
		r.attempts[claim] = one
	}
	one.touched = r.now()
	return one
}

// prune drops what nobody has asked for in a long time. A claim that waits is
// looked at once in every pause.
func (r *Race) prune() {
	if len(r.attempts) < r.pruneAt {
		return
	}
	for claim, one := range r.attempts {
		if r.now().Sub(one.touched) > 10*r.max {
			delete(r.attempts, claim)
		}
	}
	r.pruneAt = max(pruneThreshold, 2*len(r.attempts))
}
