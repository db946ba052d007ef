package kubelet

import (
	"time"

	"github.com/holdfast-io/holdfast/internal/runtime/freezer"
)

// watchInterval is the resolution of the measured frozen time.
const watchInterval = 2 * time.Millisecond

// A watch measures for how long a container is frozen during a call. CRIU's own statistics
// say less: the CRI runtime freezes the container before it starts CRIU, and thaws it only
// when the files are packed.
type watch struct {
	stopped chan struct{}
	seen    chan struct{} // closed when first and last are final

	first, last time.Time // when it was seen frozen
}

// startWatch watches a control group; nil for none.
func startWatch(group *freezer.Cgroup) *watch {
	w := &watch{stopped: make(chan struct{}), seen: make(chan struct{})}
	if group == nil {
		close(w.seen)
		return w
	}
	go w.run(group)
	return w
}

func (w *watch) run(group *freezer.Cgroup) {
	defer close(w.seen)
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	for {
		if state, err := group.State(); err == nil && state != freezer.Thawed {
			w.last = time.Now()
			if w.first.IsZero() {
				w.first = w.last
			}
		}
		select {
		case <-w.stopped:
			return
		case <-ticker.C:
		}
	}
}

// stop ends the watch, and returns when the container froze and for how long: from first to
// last, because CRIU thaws it in between while it holds the processes itself. The time is 0
// if it was not seen frozen.
func (w *watch) stop() (at time.Time, frozen time.Duration) {
	close(w.stopped)
	<-w.seen
	if w.first.IsZero() {
		return w.first, 0
	}
	return w.first, w.last.Sub(w.first) + watchInterval
}
