package pernode

import (
	"math/rand/v2"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// A Race spreads the tries of many nodes to get a claim that each of them could serve:
// all wait for a random time, and the first one that has capacity writes its name to the
// claim. The API server accepts one of them.
//
// The state in memory only spreads the tries. After a restart the delays are short again.
type Race struct {
	base, max time.Duration
	now       func() time.Time
	random    func() float64 // at least 0 and below 1

	mu       sync.Mutex
	attempts map[types.UID]*attempt
	pruneAt  int // number of attempts at which old ones are removed
}

// A attempt is the state of one claim on this node.
type attempt struct {
	tries   int
	due     time.Time // of the next try; zero while a node has the claim
	touched time.Time
}

// pruneThreshold is how many claims are kept before those that are over are removed.
const pruneThreshold = 1024

// NewRace returns the race of a node.
func NewRace(n *Node) *Race {
	return &Race{base: n.BaseDelay, max: n.MaxDelay, now: time.Now, random: rand.Float64, attempts: map[types.UID]*attempt{}, pruneAt: pruneThreshold}
}

// pause returns how long to wait before a try. It is random below a ceiling that doubles
// with each earlier try, up to longest.
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

// Wait returns how long this node has to wait before it may try to get a claim.
func (r *Race) Wait(claim types.UID) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	one := r.attempt(claim)
	if one.due.IsZero() {
		one.due = r.now().Add(pause(r.base, r.max, one.tries, r.random()))
	}
	return max(0, one.due.Sub(r.now()))
}

// Tried ends a try and returns the delay of the next one. Long is true if the delay has
// reached its maximum: by then every node has tried.
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

// Settled records that a node has the claim. If the claim is given back because that
// node had no capacity after all, the delays continue where they were.
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

// prune removes the claims that have not been reconciled for a long time. A claim that
// waits is reconciled after each delay.
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
