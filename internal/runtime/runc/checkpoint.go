package runc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/runtime"
)

// A checkpoint is one that this worker makes.
type checkpoint struct {
	dir     string
	request request
	targets []*target
	step    runtime.Step
	reason  string // why no faster step
	// isolated is where CRIU runs.
	isolated *isolated
}

// makeCheckpoint makes the checkpoint that a directory's request asks for. The outcome
// is the directory's result; an error means that not even that could be written.
func makeCheckpoint(ctx context.Context, dir string) error {
	lock, err := lockFileOf(dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	c := &checkpoint{dir: dir}
	records, err := c.make(ctx)
	outcome := result{Dumps: records}
	if err != nil {
		outcome = result{Error: toFailure(err)}
		// What is left of a failed checkpoint may be what has filled the disk.
		if err := c.clean(); err != nil {
			return err
		}
	}
	return writeJSON(filepath.Join(dir, resultFile), outcome)
}

func (c *checkpoint) make(ctx context.Context) ([]record, error) {
	if err := readJSON(filepath.Join(c.dir, requestFile), &c.request); err != nil {
		return nil, err
	}
	if err := errors.Join(joinFirstProcess(), inBackground()); err != nil {
		return nil, err
	}
	var err error
	if c.isolated, err = isolate(); err != nil {
		return nil, err
	}
	defer c.isolated.close()
	unlock, err := c.prepare()
	defer unlock()
	defer c.closeFiles()
	if err != nil {
		return nil, err
	}
	if err := c.dumpStepwise(ctx); err != nil {
		return nil, errors.Join(c.whoEnded(), err, c.closeCopies())
	}
	return c.finish()
}

// whoEnded returns that a container has ended, which is why CRIU fails then, whatever it says.
func (c *checkpoint) whoEnded() error {
	for _, t := range c.targets {
		if err := t.checkAlive(); err != nil {
			return err
		}
	}
	return nil
}

// dumpStepwise dumps with the chosen step, and with the next slower one if that fails for a
// reason of its own.
func (c *checkpoint) dumpStepwise(ctx context.Context) error {
	for {
		for i, t := range c.targets {
			if err := c.prepareImages(t, i); err != nil {
				return err
			}
		}
		err := c.dump(ctx)
		if err == nil || c.step != runtime.FreezeCopy || !isOfFreezeCopy(err) {
			return err
		}
		if err := c.closeCopies(); err != nil {
			return err
		}
		c.step, c.reason = runtime.Tmpfs, fmt.Sprintf("FreezeCopy failed: %v", err)
	}
}

// isOfFreezeCopy reports whether another step may succeed.
func isOfFreezeCopy(err error) bool {
	return runtime.ReasonOf(err) == runtime.DumpFailed
}

func (c *checkpoint) closeFiles() {
	for _, t := range c.targets {
		t.closeFiles()
	}
}

// lockFileOf locks the directory of a checkpoint for as long as the file is open.
func lockFileOf(dir string) (*os.File, error) {
	file, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the lock of the checkpoint: %w", err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("locking the checkpoint: another process works on it: %w", err), file.Close())
	}
	return file, nil
}

// prepare does everything that can be done before the containers are frozen. The function
// that it returns ends the exclusive use of the containers.
func (c *checkpoint) prepare() (func(), error) {
	var locks []*os.File
	unlock := func() {
		for _, lock := range locks {
			lock.Close()
		}
	}
	var expected int64
	for i, container := range c.request.Containers {
		t, err := findTarget(container)
		if err != nil {
			return unlock, err
		}
		lock, err := t.lock()
		if err != nil {
			return unlock, err
		}
		locks = append(locks, lock)
		u, err := preflight(t, c.request.Options)
		if err != nil {
			return unlock, err
		}
		t.usage = u
		expected += u.memory()
		t.dir = filepath.Join(c.dir, strconv.Itoa(i))
		if err := os.MkdirAll(t.dir, 0o700); err != nil {
			return unlock, fmt.Errorf("making a directory for the checkpoint: %w", err)
		}
		c.targets = append(c.targets, t)
	}
	if err := c.checkNode(expected); err != nil {
		return unlock, err
	}
	return unlock, c.stageFiles()
}

// checkNode chooses the step for containers with so much memory, in bytes, and checks that
// the node has the time and the room for it.
func (c *checkpoint) checkNode(expected int64) error {
	if err := c.chooseStep(expected); err != nil {
		return err
	}
	if err := c.request.FreezeTimes.Check(c.step, expected, c.request.Options.Timeout); err != nil {
		return err
	}
	needed := int64(spareDisk)
	if c.step == runtime.Disk {
		needed += expected
	}
	return checkDisk(c.dir, needed)
}

// spareDisk is room for everything but the memory.
const spareDisk = 64 << 20

// stageFiles copies the changes to the root file systems and the volumes, while the
// containers run.
func (c *checkpoint) stageFiles() error {
	for _, t := range c.targets {
		var err error
		if t.layer, err = newLayer(t.rootfs, t.dir); err != nil {
			return err
		}
		if err := errors.Join(t.layer.scan(), t.stageVolumes(c.request.Options)); err != nil {
			return err
		}
	}
	return nil
}

// lock takes the exclusive use of a container among all checkpoints of the node. The lock
// is on the container's control group, so that nothing is left of it.
func (t *target) lock() (*os.File, error) {
	dir, err := os.Open(t.cgroup.Path())
	if err != nil {
		return nil, fmt.Errorf("opening the control group of container %s: %w", t.Name, err)
	}
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		dir.Close()
		return nil, runtime.WaitErrorf(runtime.Busy, "another checkpoint of container %s is being made; wait until it is complete", t.Name)
	}
	return dir, nil
}

// dump freezes the containers, dumps them and thaws them. Nothing is frozen when it
// returns.
func (c *checkpoint) dump(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	runs, err := c.newRuns(ctx)
	defer func() {
		// Ends CRIU, if an error has come from elsewhere.
		cancel(err)
		for _, r := range runs {
			err = errors.Join(err, r.close())
		}
		if err != nil { // CRIU may have outlived runc.
			err = errors.Join(err, endOrphans(context.WithoutCancel(ctx), c.dir))
		}
		err = errors.Join(err, c.thaw(), inBackground())
	}()
	if err != nil {
		return err
	}
	if err := errors.Join(c.writeJournal(), inForeground()); err != nil {
		return err
	}
	limit := c.request.Options.Timeout
	defer time.AfterFunc(limit, func() { cancel(timedOut(limit)) }).Stop()
	if err := c.freeze(ctx); err != nil {
		return err
	}
	for _, r := range runs {
		if err := c.dumpOne(ctx, r); err != nil {
			return err
		}
		if err := r.target.thaw(); err != nil {
			return err
		}
	}
	return nil
}

// newRuns prepares CRIU for all containers.
func (c *checkpoint) newRuns(ctx context.Context) ([]*criuRun, error) {
	var runs []*criuRun
	for _, t := range c.targets {
		r, err := c.newRun(ctx, t)
		if r != nil {
			runs = append(runs, r)
		}
		if err != nil {
			return runs, err
		}
	}
	return runs, nil
}

func timedOut(limit time.Duration) error {
	return runtime.RetryErrorf(runtime.Timeout, "the container would have been frozen for more than %s; it was thawed", limit)
}

// writeJournal puts what is going to be frozen on record.
func (c *checkpoint) writeJournal() error {
	start, err := startTime(os.Getpid())
	if err != nil {
		return err
	}
	j := journal{PID: os.Getpid(), Start: start, Written: time.Now()}
	for _, t := range c.targets {
		j.Containers = append(j.Containers, frozenContainer{ID: t.ID, Cgroup: t.cgroup.Path()})
	}
	return writeJSON(filepath.Join(c.dir, journalFile), j)
}

// dumpOne dumps one frozen container: its memory and state with CRIU, and beside that the
// changes to its root file system and its volumes.
func (c *checkpoint) dumpOne(ctx context.Context, r *criuRun) error {
	mapped, err := r.target.mappedFiles()
	if err != nil {
		return err
	}
	r.target.setFrozen(mapped)
	scanned := make(chan error, 1)
	go func() { scanned <- r.target.scanFiles() }()
	if c.step == runtime.FreezeCopy {
		err = c.freezeCopy(ctx, r)
	} else if err = c.begin(ctx, r); err == nil {
		err = r.wait()
	}
	return errors.Join(err, <-scanned)
}

// thaw lets a container run again.
func (t *target) thaw() error {
	if err := t.cgroup.Thaw(context.Background()); err != nil {
		return fmt.Errorf("thawing container %s: %w", t.Name, err)
	}
	if t.frozen == 0 && !t.frozenAt.IsZero() {
		t.frozen = time.Since(t.frozenAt)
	}
	return nil
}

func (c *checkpoint) thaw() error {
	var failed []error
	for _, t := range c.targets {
		failed = append(failed, t.thaw())
	}
	return errors.Join(failed...)
}

// clean removes what a failed checkpoint has written.
func (c *checkpoint) clean() error {
	failed := []error{unmountMemory(c.dir)}
	for _, t := range c.targets {
		failed = append(failed, os.RemoveAll(t.dir))
	}
	return errors.Join(failed...)
}
