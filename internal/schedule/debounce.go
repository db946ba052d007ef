package schedule

import (
	"sync"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// debounceFactor is the length of the pause, as a multiple of how long the reconcile took.
	debounceFactor = 4
	// maxDebounce is the upper bound.
	maxDebounce = 5 * time.Second
)

// debouncer pauses the reconciles of a schedule. Each change of a child triggers a
// reconcile of its schedule. With thousands of children, observing them is expensive and the
// status is large. A pause handles the changes of a moment together. With few children,
// reconcile and pause take milliseconds.
type debouncer struct {
	mu    sync.Mutex
	until map[client.ObjectKey]time.Time
}

func (r *debouncer) remaining(schedule client.ObjectKey, now time.Time) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.until[schedule].Sub(now)
}

// start starts the pause after a reconcile. It also removes pauses that are over.
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
