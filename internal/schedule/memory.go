package schedule

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// beyond is what is known to be there beyond the cache: the snapshots that this
// process has made, or has seen at the API server, and that the cache has not shown
// yet. While there are none of a schedule the cache is believed, so a run of many
// claims does not list all of its snapshots for each. A process that knows nothing
// of a schedule yet, because it has just begun to lead, looks first.
type beyond struct {
	mu  sync.Mutex
	all map[client.ObjectKey]*unseen
}

type unseen struct {
	schedule types.UID
	names    map[string]bool
}

// nothing tells whether the cache has all that is known to be there.
func (b *beyond) nothing(cached *seen) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	u := b.all[client.ObjectKeyFromObject(cached.schedule)]
	if u == nil || u.schedule != cached.schedule.UID {
		return false
	}
	for _, s := range cached.shots {
		delete(u.names, s.name)
	}
	return len(u.names) == 0
}

// saw takes note of what is at the API server and not in the cache.
func (b *beyond) saw(live, cached *seen) {
	u := &unseen{live.schedule.UID, map[string]bool{}}
	for _, s := range live.shots {
		u.names[s.name] = true
	}
	for _, s := range cached.shots {
		delete(u.names, s.name)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.all == nil {
		b.all = map[client.ObjectKey]*unseen{}
	}
	b.all[client.ObjectKeyFromObject(live.schedule)] = u
}

// made takes note of a snapshot that was made.
func (b *beyond) made(schedule client.ObjectKey, name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if u := b.all[schedule]; u != nil {
		u.names[name] = true
	}
}

func (b *beyond) forget(schedule client.ObjectKey) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.all, schedule)
}

const (
	// resting is how many times as long as something took it is not done again.
	resting = 4
	// longestRest bounds that.
	longestRest = 5 * time.Second
)

// rests are until when something is not done about schedules again. Each snapshot
// that gets on wakes its schedule up. To look at thousands is work, and to report of
// them writes a large status: what happens within a moment is answered together.
// With few it takes milliseconds, and so does the rest.
type rests struct {
	mu    sync.Mutex
	until map[client.ObjectKey]time.Time
}

func (r *rests) left(schedule client.ObjectKey, now time.Time) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.until[schedule].Sub(now)
}

// begin begins the rest after what was done. Those that are over are forgotten.
func (r *rests) begin(schedule client.ObjectKey, begun, ended time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.until == nil {
		r.until = map[client.ObjectKey]time.Time{}
	}
	for other, until := range r.until {
		if !until.After(ended) {
			delete(r.until, other)
		}
	}
	r.until[schedule] = ended.Add(min(resting*ended.Sub(begun), longestRest))
}
