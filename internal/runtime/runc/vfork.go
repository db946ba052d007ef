package runc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/runtime"
)

const (
	// vforkPause is for how long containers run when one of them has to leave vfork, at first
	// and at most.
	vforkPause, maxVforkPause = time.Millisecond, 50 * time.Millisecond
	// vforkAttempts is how often that is tried.
	vforkAttempts = 100
)

// freeze freezes all containers, none of them between vfork and exec. There a parent waits for
// its child, also when CRIU tells both to stop: the child does and the parent does not, until
// CRIU gives up.
func (c *checkpoint) freeze(ctx context.Context) error {
	pause := vforkPause
	for range vforkAttempts {
		for _, t := range c.targets {
			t.frozenAt, t.frozen = time.Now(), 0
			if err := t.cgroup.Freeze(ctx); err != nil {
				return err
			}
		}
		inVfork, err := c.inVfork()
		if err != nil || inVfork == "" {
			return err
		}
		if err := c.thaw(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for container %s to start a program: %w", inVfork, context.Cause(ctx))
		case <-time.After(pause):
			pause = min(2*pause, maxVforkPause)
		}
	}
	return runtime.RetryErrorf(runtime.FreezeFailed, "a process of the pod was starting a program (vfork) whenever the containers were frozen, %d times", vforkAttempts)
}

// inVfork returns a container of which a process is between vfork and exec, "" for none.
func (c *checkpoint) inVfork() (string, error) {
	for _, t := range c.targets {
		pids, err := t.cgroup.Processes()
		if err != nil {
			return "", err
		}
		for _, pid := range pids {
			if sharesMemory(pid, pids) {
				return t.Name, nil
			}
		}
	}
	return "", nil
}

// sharesMemory reports whether a process has the memory of its parent, which is one of all. A
// process that ends meanwhile has not.
func sharesMemory(pid int, all []int) bool {
	parent, err := parentOf(pid)
	if err != nil || !slices.Contains(all, parent) {
		return false
	}
	const kcmpVM = 1 // of linux/kcmp.h
	for {
		order, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(pid), uintptr(parent), kcmpVM, 0, 0, 0)
		if !errors.Is(errno, unix.EINTR) {
			return errno == 0 && order == 0
		}
	}
}
