package runc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/runtime/freezer"
)

const (
	// recoverPoll is how often a worker or CRIU is looked at until it has ended.
	recoverPoll = 20 * time.Millisecond
	// orphanTime is how long CRIU may go on when its worker is gone: most dumps end by
	// themselves, and nobody reads what this one writes.
	orphanTime = 3 * time.Second
	// workerGrace is how much longer than the limit of its freeze a worker may take before
	// it counts as stuck.
	workerGrace = time.Minute
)

// recoverCheckpoint waits for the worker of a checkpoint, if there still is one. If it
// ended without a result, everything that it had frozen is thawed.
func recoverCheckpoint(ctx context.Context, dir string) error {
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	lock, err := waitForWorker(ctx, dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	if _, err := os.Stat(filepath.Join(dir, resultFile)); err == nil {
		return nil
	}
	var j journal
	err = readJSON(filepath.Join(dir, journalFile), &j)
	if errors.Is(err, os.ErrNotExist) {
		return nil // Nothing was frozen.
	}
	if err != nil {
		return err
	}
	if err := endOrphans(ctx, dir); err != nil {
		return err
	}
	return j.thaw()
}

// thaw lets all containers of a journal run again.
func (j *journal) thaw() error {
	var failed []error
	for _, container := range j.Containers {
		cgroup, err := freezer.At(container.Cgroup)
		if errors.Is(err, freezer.ErrNotFound) {
			continue // The container has ended.
		}
		if err == nil {
			err = cgroup.Thaw(context.Background())
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("thawing container %s: %w", container.ID, err))
		}
	}
	return errors.Join(failed...)
}

// waitForWorker returns the lock of a checkpoint when its worker has ended. A worker that
// is stuck is killed.
func waitForWorker(ctx context.Context, dir string) (*os.File, error) {
	var r request
	if err := readJSON(filepath.Join(dir, requestFile), &r); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	deadline := time.Now().Add(r.Options.Timeout + workerGrace)
	for {
		lock, err := lockFileOf(dir)
		if err == nil || !errors.Is(err, unix.EWOULDBLOCK) {
			return lock, err
		}
		if time.Now().After(deadline) {
			if err := killWorker(dir); err != nil {
				return nil, err
			}
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for the worker of a checkpoint: %w", ctx.Err())
		case <-time.After(recoverPoll):
		}
	}
}

// killWorker kills the worker that a journal names, if it still is that one.
func killWorker(dir string) error {
	var j journal
	if err := readJSON(filepath.Join(dir, journalFile), &j); err != nil {
		return fmt.Errorf("finding the worker of a checkpoint, which is stuck: %w", err)
	}
	start, err := startTime(j.PID)
	if err != nil || start != j.Start {
		return nil //nolint:nilerr // It has ended.
	}
	if err := unix.Kill(j.PID, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("killing the worker of a checkpoint, which is stuck: %w", err)
	}
	return nil
}

// endOrphans waits until runc and CRIU of a checkpoint have ended, and kills them after a
// while. CRIU at its end freezes a container that it has found frozen. None of them has to
// be found twice: one that is just being executed has no environment for a moment.
func endOrphans(ctx context.Context, dir string) error {
	deadline := time.Now().Add(orphanTime)
	for absent := 0; ; {
		pids, err := markedProcesses(dir)
		if err != nil {
			return err
		}
		if absent++; len(pids) > 0 {
			absent = 0
		}
		if absent == 2 {
			return nil
		}
		if time.Now().After(deadline) {
			if err := killMarked(dir); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for CRIU: %w", ctx.Err())
		case <-time.After(recoverPoll):
		}
	}
}

// removeCheckpoint removes all that is left of a checkpoint.
func removeCheckpoint(dir string) error {
	if err := unmountMemory(dir); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("removing a checkpoint: %w", err)
	}
	return nil
}
