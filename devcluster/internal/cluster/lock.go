package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/devcluster/internal/lifeline"
)

// Every process of a cluster holds the cluster's lock. While one of them lives,
// whichever way the others went, nobody takes the name or removes files.

// lockFile lies beside the folder, so that it outlives it. It holds the number
// of the process that runs the cluster.
func (d Dir) lockFile() string { return string(d) + ".lock" }

// lock takes the lock. It fails with EWOULDBLOCK while a process of the
// cluster lives.
func (d Dir) lock() (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(d.lockFile()), 0o755); err != nil {
		return nil, fmt.Errorf("making the folder of clusters: %w", err)
	}
	return d.flock(os.O_CREATE|os.O_RDWR, unix.LOCK_EX)
}

// flock opens the lock file and locks it without waiting.
func (d Dir) flock(flags, how int) (*os.File, error) {
	for {
		f, err := os.OpenFile(d.lockFile(), flags, 0o644)
		if err != nil {
			return nil, fmt.Errorf("opening the lock of cluster %s: %w", d.Name(), err)
		}
		if err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB); err != nil {
			return nil, errors.Join(fmt.Errorf("locking cluster %s: %w", d.Name(), err), f.Close())
		}
		if current(f) {
			return f, nil
		}
		f.Close() // Its last holder removed it in between: that lock excludes nobody.
	}
}

// current tells whether an open file is still the one of its name.
func current(f *os.File) bool {
	opened, err := f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Stat(f.Name())
	return err == nil && os.SameFile(opened, named)
}

// unlock gives the lock back and removes its file.
func (d Dir) unlock(lock *os.File) error {
	return errors.Join(os.Remove(d.lockFile()), lock.Close())
}

// running tells whether a process of the cluster lives. Asking is no obstacle
// to others who ask.
func (d Dir) running() bool {
	lock, err := d.flock(os.O_RDONLY, unix.LOCK_SH)
	if err != nil {
		return errors.Is(err, unix.EWOULDBLOCK)
	}
	lock.Close()
	return false
}

// take takes the lock and puts this process down as the owner. It waits for
// the remains of an earlier owner, but not for a living one.
func (d Dir) take() (*os.File, error) {
	for {
		lock, err := d.lock()
		if err == nil {
			return lock, d.own(lock)
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, err
		}
		if err := d.drain(func(owner int) error {
			return fmt.Errorf("cluster %s is up or coming up, in process %d; stop it by: devcluster down --name %s", d.Name(), owner, d.Name())
		}); err != nil {
			return nil, err
		}
	}
}

func (d Dir) own(lock *os.File) error {
	if err := lock.Truncate(0); err != nil {
		return fmt.Errorf("writing who runs cluster %s: %w", d.Name(), err)
	}
	if _, err := lock.WriteAt([]byte(strconv.Itoa(os.Getpid())), 0); err != nil {
		return fmt.Errorf("writing who runs cluster %s: %w", d.Name(), err)
	}
	return nil
}

// owner is the process that runs the cluster, or 0 if it is gone.
func (d Dir) owner() int {
	text, err := os.ReadFile(d.lockFile())
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(string(text))
	if err != nil || !d.holds(pid) {
		return 0 // The number may be another process's by now.
	}
	return pid
}

// holds tells whether a process has the lock file open.
func (d Dir) holds(pid int) bool {
	file, err := filepath.EvalSymlinks(d.lockFile())
	if err != nil {
		return false
	}
	open, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid)) // The pattern is well-formed.
	for _, link := range open {
		if target, err := os.Readlink(link); err == nil && target == file {
			return true
		}
	}
	return false
}

// orphanPatience is how long the children of a dead process may take to
// notice. One that was stopped by SIGSTOP never does.
const orphanPatience = 5 * time.Second

// drain returns when no process holds the cluster's lock. As long as the
// owner lives found decides; children that do not follow a dead one are killed.
func (d Dir) drain(found func(owner int) error) error {
	began := time.Now()
	for ; d.running(); time.Sleep(pulse) {
		if time.Since(began) > patience {
			return fmt.Errorf("cluster %s has not ended after %s; see who has %s open", d.Name(), patience, d.lockFile())
		}
		if owner := d.owner(); owner != 0 {
			if err := found(owner); err != nil {
				return err
			}
			continue
		}
		if time.Since(began) > orphanPatience {
			d.killOrphans()
		}
	}
	return nil
}

// killOrphans ends the children of a dead owner: they hold its lock.
func (d Dir) killOrphans() {
	processes, _ := filepath.Glob("/proc/[0-9]*") // The pattern is well-formed.
	for _, process := range processes {
		pid, err := strconv.Atoi(strings.TrimPrefix(process, "/proc/"))
		if err == nil && lifeline.Attached(pid) && d.holds(pid) {
			_ = unix.Kill(pid, unix.SIGKILL) // If it is not allowed, waiting ends with an error that tells.
		}
	}
}
