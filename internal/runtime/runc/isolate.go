package runc

import (
	"fmt"
	goruntime "runtime"

	"golang.org/x/sys/unix"
)

// An isolated runs functions in a network namespace of its own, in which there is nothing
// but the loopback interface. CRIU runs there: while it dumps lazily it listens on all
// addresses, and gives the memory of the container to everybody who asks.
type isolated struct {
	functions chan func()
}

// isolate makes the namespace. It lasts until close is called and the processes in it
// have ended.
func isolate() (*isolated, error) {
	i := &isolated{functions: make(chan func())}
	ready := make(chan error)
	go func() {
		// The thread is not unlocked: it ends with this goroutine.
		goruntime.LockOSThread()
		err := newLoopback()
		ready <- err
		for function := range i.functions {
			function()
		}
	}()
	if err := <-ready; err != nil {
		i.close()
		return nil, err
	}
	return i, nil
}

// run runs a function in the namespace and returns what it returns.
func (i *isolated) run(function func() error) error {
	result := make(chan error)
	i.functions <- func() { result <- function() }
	return <-result
}

func (i *isolated) close() { close(i.functions) }

// newLoopback moves the calling thread into a new network namespace and sets its loopback
// interface up.
func newLoopback() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("making a network namespace for CRIU: %w", err)
	}
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("making a socket in the network namespace for CRIU: %w", err)
	}
	defer unix.Close(socket)
	loopback, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("naming the loopback interface: %w", err)
	}
	loopback.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, loopback); err != nil {
		return fmt.Errorf("setting up the loopback interface for CRIU: %w", err)
	}
	return nil
}
