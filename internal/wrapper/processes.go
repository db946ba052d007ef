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
		state, parent, ok := stat(pid)
		if ok {
			children[parent] = append(children[parent], pid)
			zombies[pid] = state == "Z" || state == "X"
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

// stat returns the state and the parent of a process, from /proc/PID/stat (proc(5)): the name
// in parentheses may contain anything.
func stat(pid int) (state string, parent int, ok bool) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return "", 0, false // It has ended.
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 2 {
		return "", 0, false
	}
	parent, err = strconv.Atoi(fields[1])
	return fields[0], parent, err == nil
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
