package restore

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// A backoff says when a fetch that has failed is tried again. It is only in memory: an agent that
// starts tries at once. Events of a pod do not make it earlier.
type backoff struct {
	start, most time.Duration

	mu   sync.Mutex
	pods map[types.NamespacedName]failedFetch
}

// A failedFetch is the last failure of a pod's request.
type failedFetch struct {
	uid     types.UID
	request string
	pause   time.Duration
	again   time.Time
}

func newBackoff(o *Options) *backoff {
	return &backoff{start: o.RetryStart, most: o.RetryMax, pods: map[types.NamespacedName]failedFetch{}}
}

// pause returns how long the next try of a request has to wait, and whether one has failed.
func (b *backoff) pause(s *state, now time.Time) (wait time.Duration, failed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	last, failed := b.last(s)
	return max(0, last.again.Sub(now)), failed
}

// failed notes another failure, and returns the pause after it, which is twice that before.
func (b *backoff) failed(s *state, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	next := failedFetch{uid: s.pod.UID, request: s.request, pause: b.start}
	if last, again := b.last(s); again {
		next.pause = min(2*last.pause, b.most)
	}
	next.again = now.Add(next.pause)
	b.pods[nameOf(s)] = next
	return next.pause
}

// last returns the last failure of the same request of the same pod.
func (b *backoff) last(s *state) (failedFetch, bool) {
	last, ok := b.pods[nameOf(s)]
	if !ok || last.uid != s.pod.UID || last.request != s.request {
		return failedFetch{}, false
	}
	return last, true
}

// forget forgets the failures of a pod.
func (b *backoff) forget(pod types.NamespacedName) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.pods, pod)
}

func nameOf(s *state) types.NamespacedName {
	return types.NamespacedName{Namespace: s.pod.Namespace, Name: s.pod.Name}
}
