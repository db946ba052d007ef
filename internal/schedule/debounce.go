package schedule

import (
	"sync"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// debounceFactor is how many times as long as something took it is not done again.
	debounceFactor = 4
	// maxDebounce bounds that.
	maxDebounce = 5 * time.Second
)

// debouncer are until when something is not done about schedules again. Each snapshot
// that gets on wakes its schedule up. To look at thousands is work, and to report of
// them writes a large status: what happens within a moment is answered together.
// With few it takes milliseconds, and so does the rest.
type debouncer struct {
	mu    sync.Mutex
	until map[client.ObjectKey]time.Time
}

func (r *debouncer) remaining(schedule client.ObjectKey, now time.Time) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.until[schedule].Sub(now)
}

// start begins the rest after what was done. Those that are over are forgotten.
func (r *debouncer) start(schedule client.ObjectKey, begun, ended time.Time) {
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
	r.until[schedule] = ended.Add(min(debounceFactor*ended.Sub(begun), maxDebounce))
}
