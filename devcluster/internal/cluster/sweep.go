package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// sweep removes what a cluster, whose lock the caller holds, left. Processes,
// mounts and network namespaces end with the process that made them; what the
// kernel keeps is loop devices, control groups and files.
func sweep(dir Dir) error {
	if err := errors.Join(sweepLoops(dir), sweepCgroups(dir, cgroupRoot)); err != nil {
		return err // The folder stays, so that the next sweep finds what is left.
	}
	// A node's last processes may still write while the kernel is ending them.
	if err := insist(func() error { return os.RemoveAll(string(dir)) }); err != nil {
		return fmt.Errorf("removing the cluster's folder: %w", err)
	}
	return nil
}

// SweepDead removes what every cluster that is not running has left.
func SweepDead() error {
	home, err := Home()
	if err != nil {
		return err
	}
	traces, err := filepath.Glob(filepath.Join(home, "clusters", "*"))
	if err != nil {
		return fmt.Errorf("listing clusters: %w", err)
	}
	var errs []error
	for _, trace := range traces { // A folder, a lock or, of most, both.
		dir := Dir(strings.TrimSuffix(trace, ".lock"))
		if CheckName(dir.Name()) == nil {
			errs = append(errs, dir.sweepIfDead())
		}
	}
	return errors.Join(errs...)
}

func (d Dir) sweepIfDead() error {
	lock, err := d.lock()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := sweep(d); err != nil {
		return errors.Join(fmt.Errorf("removing what cluster %s left: %w", d.Name(), err), lock.Close())
	}
	return d.unlock(lock)
}

// insist repeats what may be refused for a moment while the kernel takes down
// processes and namespaces.
func insist(do func() error) error {
	const patience = 10 * time.Second
	end := time.Now().Add(patience)
	for {
		err := do()
		if err == nil || time.Now().After(end) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}
