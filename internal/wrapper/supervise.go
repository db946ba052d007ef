package wrapper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/mounts"
	"github.com/holdfast-io/holdfast/internal/ticket"
)

// workerName is the name under which the program runs itself to restore. There are two
// processes so that each of them can remove what the other one has left if that is killed.
const workerName = "holdfast-runtime-restore"

// exitChanged is the exit code of a worker that has found another ticket than expected.
const exitChanged = 75

func isChanged(err error) bool {
	var ended *exec.ExitError
	return errors.As(err, &ended) && ended.ExitCode() == exitChanged
}

// stopSignals end a restore.
var stopSignals = []os.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP}

// stopTimeout is how long a worker that is told to stop may take.
const stopTimeout = 30 * time.Second

// supervise runs the worker. It stops it when ctx ends or when it is itself told to stop. If
// the worker is killed, supervise removes what it has left.
func (w *wrapper) supervise(ctx context.Context, place *ticket.Container) error {
	if err := adoptOrphans(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, stopSignals...)
	defer stop()
	// The kernel sends the signal when the thread ends that has started the worker.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	started := time.Now()
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = append([]string{workerName}, w.argv...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGTERM}
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	cmd.WaitDelay = stopTimeout
	err := cmd.Run()
	if cmd.ProcessState != nil && cmd.ProcessState.Exited() {
		if cmd.ProcessState.ExitCode() == 0 {
			return nil // It has restored the container, also if it was told to stop then.
		}
		var ended *exec.ExitError
		if errors.As(err, &ended) {
			return ended
		}
	}
	err = fmt.Errorf("the restore was interrupted: %w", err)
	err = errors.Join(err, w.removeRest(), mounts.RemoveAll(filepath.Join(place.Dir(), workDir)))
	return errors.Join(err, w.recordInterruption(place, started, err))
}

// recordInterruption records the outcome of a worker that could not.
func (w *wrapper) recordInterruption(place *ticket.Container, started time.Time, why error) error {
	claimed, err := place.Claimed()
	if errors.Is(err, ticket.ErrNone) {
		return nil // It was killed before.
	}
	if err != nil {
		return err
	}
	return place.SetOutcome(ticket.Outcome{
		Request: claimed.Request, ContainerID: w.call.id, Error: why.Error(), Interrupted: true,
		Started: started, Ended: time.Now(),
	})
}

// removeRest removes what a restore has left that was not completed.
func (w *wrapper) removeRest() error {
	if err := killDescendants(0); err != nil {
		return err
	}
	// runc mounts the root file system in its state directory, for CRIU.
	if dir := w.call.stateDir(w.config.runtime); dir != "" {
		if err := mounts.UnmountBelow(dir); err != nil {
			return err
		}
	}
	args := append(append([]string{}, w.call.global...), "delete", "--force", w.call.id)
	cmd := exec.Command(w.config.runtime, args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("deleting what is left of the container: %w: %s", err, out)
	}
	return nil
}
