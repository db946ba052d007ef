package mounts

import (
	"fmt"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// In calls a function in the mount namespace of a process. What is mounted there is seen in
// containers that the mounts reach; what is unmounted there is gone for all of them.
func In(pid int, do func() error) error {
	result := make(chan error, 1)
	go func() {
		// The thread is not unlocked: it cannot go back and ends with this goroutine.
		runtime.LockOSThread()
		if err := enter(pid); err != nil {
			result <- err
			return
		}
		result <- do()
	}()
	return <-result
}

func enter(pid int) error {
	namespace, err := os.Open("/proc/" + strconv.Itoa(pid) + "/ns/mnt")
	if err != nil {
		return fmt.Errorf("opening the mount namespace of process %d: %w", pid, err)
	}
	defer namespace.Close()
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("leaving the shared working directory: %w", err)
	}
	if err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("entering the mount namespace of process %d: %w", pid, err)
	}
	return nil
}
