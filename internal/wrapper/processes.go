package wrapper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// killTimeout is how long processes may take to end after SIGKILL.
	killTimeout = 10 * time.Second
	killPoll    = 5 * time.Millisecond
)

// adoptOrphans lets processes whose parent has ended become children of this process, so
// that what a restore has started can be found. When this process ends, its own parent gets
// them: that of the container's first process is the CRI runtime's then, as always.
func adoptOrphans() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("becoming the parent of orphaned processes: %w", err)
	}
	return nil
}

// killDescendants kills every process that this one, its children and so on have started,
// except one of them; 0 means none. It returns when they have ended.
func killDescendants(except int) error {
	ctx, cancel := context.WithTimeout(context.Background(), killTimeout)
	defer cancel()
	for {
		living, err := descendants(except)
		if err != nil || len(living) == 0 {
			return err
		}
		for _, pid := range living {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("killing process %d of the restore: %w", pid, err)
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("processes %v of the restore do not end", living)
		case <-time.After(killPoll):
		}
	}
}

// descendants returns the living processes below this one.
func descendants(except int) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("listing processes: %w", err)
	}
	children := map[int][]int{}
	zombies := map[int]bool{}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if p, ok := stat(pid); ok {
			children[p.parent] = append(children[p.parent], pid)
			zombies[pid] = p.ended()
		}
	}
	var living []int
	for queue := children[os.Getpid()]; len(queue) > 0; queue = queue[1:] {
		pid := queue[0]
		queue = append(queue, children[pid]...)
		if pid != except && !zombies[pid] {
			living = append(living, pid)
		}
	}
	return living, nil
}

// A process is what /proc/PID/stat says about one (proc(5)).
type process struct {
	name, state string
	parent      int
	status      int // of a process that has ended and that its parent has not waited for
}

// ended reports whether only the exit status is left of a process.
func (p process) ended() bool { return p.state == "Z" || p.state == "X" }

// stat returns what the kernel says about a process. The name in parentheses may contain
// anything.
func stat(pid int) (process, bool) {
	const state, parent, status = 0, 1, 49
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return process{}, false // It has ended.
	}
	begin, end := strings.IndexByte(string(text), '('), strings.LastIndexByte(string(text), ')')
	if begin < 0 || end < begin {
		return process{}, false
	}
	fields := strings.Fields(string(text[end+1:]))
	if len(fields) <= status {
		return process{}, false
	}
	p := process{name: string(text[begin+1 : end]), state: fields[state]}
	p.parent, err = strconv.Atoi(fields[parent])
	if err != nil {
		return process{}, false
	}
	p.status, err = strconv.Atoi(fields[status])
	return p, err == nil
}

// hasDeadChild reports whether a process has a child of that name that has failed, or was
// killed, and that it has not waited for.
func hasDeadChild(parent int, name string) bool {
	lists, err := filepath.Glob(filepath.Join("/proc", strconv.Itoa(parent), "task/*/children"))
	if err != nil {
		return false // The pattern is a good one.
	}
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			continue // The thread has ended.
		}
		for field := range strings.FieldsSeq(string(text)) {
			pid, err := strconv.Atoi(field)
			if err != nil {
				continue
			}
			if p, ok := stat(pid); ok && p.name == name && p.ended() && p.status != 0 {
				return true
			}
		}
	}
	return false
}

// closeDescriptors keeps descriptors other than the standard ones from programs that this
// process starts: a restored process would have them, and could not be dumped again.
func closeDescriptors() error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("listing descriptors: %w", err)
	}
	for _, entry := range entries {
		if fd, err := strconv.Atoi(entry.Name()); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}
