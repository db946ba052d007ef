package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Processes, mounts and network namespaces end with the process that made
// them. What the kernel keeps is loop devices, control groups and files; sweep
// removes those of one cluster, whose lock the caller holds.
func sweep(dir Dir) error {
	if err := errors.Join(sweepLoops(dir), sweepCgroups(dir)); err != nil {
		return err // The folder stays, so that the next sweep finds what is left.
	}
	if err := os.RemoveAll(string(dir)); err != nil {
		return fmt.Errorf("removing the cluster's folder: %w", err)
	}
	return nil
}

// SweepDead removes what every cluster that is not running has left. The lock
// files stay: removing one would let two processes hold the same lock.
func SweepDead() error {
	home, err := Home()
	if err != nil {
		return err
	}
	folders, err := filepath.Glob(filepath.Join(home, "clusters", "*", "logs"))
	if err != nil {
		return fmt.Errorf("listing clusters: %w", err)
	}
	var errs []error
	for _, logs := range folders {
		dir := Dir(filepath.Dir(logs))
		lock, err := dir.lock()
		if errors.Is(err, unix.EWOULDBLOCK) {
			continue
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, sweep(dir), lock.Close())
	}
	return errors.Join(errs...)
}

// fileID tells files apart whatever path leads to them.
type fileID struct{ device, inode uint64 }

// sweepLoops detaches the loop devices whose files lie in the cluster's folder.
func sweepLoops(dir Dir) error {
	loops, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil || len(loops) == 0 || len(dir.Nodes()) == 0 {
		return err
	}
	files := map[fileID]bool{}
	for _, n := range dir.Nodes() {
		if err := collect(filepath.Join(n, "var"), files); err != nil {
			return err
		}
	}
	var errs []error
	for _, loop := range loops {
		device := "/dev/" + strings.Split(loop, "/")[3]
		if err := detach(device, files); err != nil {
			errs = append(errs, fmt.Errorf("detaching %s: %w", device, err))
		}
	}
	return errors.Join(errs...)
}

func collect(root string, files map[fileID]bool) error {
	return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			files[fileID{stat.Dev, stat.Ino}] = true
		}
		return nil
	})
}

func detach(device string, files map[fileID]bool) error {
	f, err := os.Open(device)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := unix.IoctlLoopGetStatus64(int(f.Fd()))
	if errors.Is(err, unix.ENXIO) {
		return nil // It was detached meanwhile.
	}
	if err != nil {
		return err
	}
	if !files[fileID{info.Device, info.Inode}] {
		return nil
	}
	err = unix.IoctlSetInt(int(f.Fd()), unix.LOOP_CLR_FD, 0)
	if errors.Is(err, unix.ENXIO) {
		return nil
	}
	return err
}

// cgroupOf is the control group under which a node's pods are put.
func cgroupOf(dir Dir, node string) string { return "/devcluster-" + dir.Name() + "-" + node }

// sweepCgroups removes the groups of the cluster's nodes from every hierarchy.
// Processes that are being killed keep a group busy for a moment.
func sweepCgroups(dir Dir) error {
	for _, n := range dir.Nodes() {
		name := cgroupOf(dir, filepath.Base(n))
		groups, err := filepath.Glob("/sys/fs/cgroup/*" + name)
		if err != nil {
			return fmt.Errorf("listing control groups: %w", err)
		}
		for _, group := range append(groups, "/sys/fs/cgroup"+name) {
			if err := removeGroup(group); err != nil {
				return err
			}
		}
	}
	return nil
}

func removeGroup(group string) error {
	const patience = 10 * time.Second
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = removeTree(group); err == nil {
			return nil
		}
	}
	return fmt.Errorf("removing control group %s: %w", group, err)
}

// removeTree removes folders from the leaves up: the files in a control group
// cannot be removed and go with it.
func removeTree(group string) error {
	var folders []string
	err := filepath.WalkDir(group, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && entry.IsDir() {
			folders = append(folders, path)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, folder := range slices.Backward(folders) {
		if err := os.Remove(folder); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
