package kubelet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/internal/runtime/freezer"
)

// activity is what can be seen of a call on the node.
type activity struct {
	frozen bool
	// traced is whether CRIU holds processes of the container: it does so after the control
	// group is thawed.
	traced bool
	// archive and size are those of the call's archive, if there is one.
	archive string
	size    int64
}

func (a activity) inProgress() bool { return a.frozen || a.traced }

// A settling decides when a call has ended on the node.
type settling struct {
	times                          times
	start, frozenSince, quietSince time.Time
	last                           activity
}

// A step is what to do about a container after a call.
type step int

const (
	wait step = iota
	thaw
	settled
	expired
)

// observe decides about what is seen at a time.
func (s *settling) observe(now activity, at time.Time) step {
	if !now.frozen {
		s.frozenSince = at
	}
	if now != s.last || now.inProgress() {
		s.quietSince = at
	}
	s.last = now
	switch {
	case now.frozen && at.Sub(s.frozenSince) >= s.times.grace:
		return thaw
	case !now.inProgress() && at.Sub(s.quietSince) >= s.times.quiet:
		return settled
	case at.Sub(s.start) >= s.times.limit:
		return expired
	}
	return wait
}

// settle waits until the runtime does nothing to the container any more, and thaws it if it
// is left frozen. It returns whether that was necessary.
func (e *Engine) settle(r *record, group *freezer.Cgroup, result result) (forced bool, err error) {
	start := time.Now()
	s := &settling{times: e.times, start: start, frozenSince: start, quietSince: start}
	if result.answered && result.err == nil {
		s.times.quiet = 0
	}
	for {
		now, err := e.activity(r, group)
		if err != nil {
			return forced, err
		}
		switch s.observe(now, time.Now()) {
		case settled:
			return forced, nil
		case expired:
			return forced, fmt.Errorf("the runtime still works on container %s, %s after the kubelet's call ended",
				r.Report.Container.ID, e.times.limit)
		case thaw:
			forced = true
			if err := group.Thaw(context.Background()); err != nil {
				return forced, fmt.Errorf("thawing container %s, which the call has left frozen: %w", r.Report.Container.ID, err)
			}
		case wait:
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// group returns the control group of a container, nil if it has ended.
func (e *Engine) group(id string) (*freezer.Cgroup, error) {
	group, err := e.cgroups.OfContainer(id)
	if errors.Is(err, freezer.ErrNotFound) {
		return nil, nil
	}
	return group, err
}

func (e *Engine) activity(r *record, group *freezer.Cgroup) (activity, error) {
	var a activity
	var err error
	if a.archive, err = e.findArchive(r); err != nil {
		return a, err
	}
	if info, err := os.Lstat(e.path(a.archive)); err == nil && a.archive != "" {
		a.size = info.Size()
	}
	if group == nil {
		return a, nil
	}
	state, err := group.State()
	if errors.Is(err, freezer.ErrNotFound) {
		return a, nil
	}
	a.frozen = state != freezer.Thawed
	a.traced = e.isTraced(group)
	return a, err
}

// isTraced reports whether a process of a control group is traced, as far as this process
// can see them: it needs the node's PID namespace for that. A control group lists processes
// by their IDs in the namespace of the reader, whose own /proc has the same IDs.
func (e *Engine) isTraced(group *freezer.Cgroup) bool {
	pids, err := group.Processes()
	if err != nil {
		return false
	}
	for _, pid := range pids {
		status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
		if err == nil && strings.Contains(string(status), "\nTracerPid:\t") && !strings.Contains(string(status), "\nTracerPid:\t0\n") {
			return true
		}
	}
	return false
}
