package runc

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const (
	// frozenNice is the priority while a container is frozen: what the node does beside must
	// not make that longer.
	frozenNice = -15
	// backgroundNice is the priority for all other work.
	backgroundNice = 5
)

// setPriority sets the priority of this worker and of all processes that it starts.
func setPriority(nice int) error {
	// Of the process group, which is the worker's own, because priorities are those of threads.
	if err := unix.Setpriority(unix.PRIO_PGRP, 0, nice); err != nil && !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("setting the priority of the checkpoint: %w", err)
	}
	// Where the kernel groups processes by session, only that of the group counts. Elsewhere
	// there is no such file.
	err := os.WriteFile("/proc/self/autogroup", fmt.Append(nil, nice), 0)
	if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.EIO) && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("setting the priority of the session of the checkpoint: %w", err)
	}
	return nil
}

// Of linux/ioprio.h.
const (
	ioprioWhoPgrp    = 2
	ioprioClassShift = 13
	ioprioBestEffort = 2
	ioprioLowest     = 7
	ioprioHighest    = 0
)

// setIOPriority does the same for reading and writing disks.
func setIOPriority(priority int) error {
	_, _, errno := unix.Syscall(unix.SYS_IOPRIO_SET, ioprioWhoPgrp, 0, uintptr(ioprioBestEffort<<ioprioClassShift|priority))
	if errno != 0 && errno != unix.ENOSYS {
		return fmt.Errorf("setting the priority of the checkpoint for disks: %w", errno)
	}
	return nil
}

func inBackground() error {
	return errors.Join(setPriority(backgroundNice), setIOPriority(ioprioLowest))
}

func inForeground() error {
	return errors.Join(setPriority(frozenNice), setIOPriority(ioprioHighest))
}
