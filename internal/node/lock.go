package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
	ctrl "sigs.k8s.io/controller-runtime"
)

// lockPoll is the pause between two looks at the lock.
const lockPoll = 100 * time.Millisecond

// Lock waits until no other agent works with a state directory, and then locks it until the
// file is closed or the process ends, however it does. An agent whose pod was deleted by
// force goes on for a moment beside its successor: what it leaves after the successor has
// recovered would be left for good.
func Lock(ctx context.Context, stateDir string) (*os.File, error) {
	if err := os.MkdirAll(stateDir, 0o700); err != nil {
		return nil, fmt.Errorf("making the state directory: %w", err)
	}
	file, err := os.OpenFile(filepath.Join(stateDir, "agent.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the lock of the state directory: %w", err)
	}
	for told := false; ; {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return file, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(fmt.Errorf("locking the state directory %s: %w", stateDir, err), file.Close())
		}
		if !told {
			ctrl.LoggerFrom(ctx).Info("Another agent still works on this node; waiting until it has ended", "directory", stateDir)
			told = true
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("waiting for the end of another agent of this node: %w", ctx.Err()), file.Close())
		case <-time.After(lockPoll):
		}
	}
}
