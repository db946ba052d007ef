package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A loop is a loop device that is attached to a file.
type loop struct {
	path   string
	number uint64 // of the device
	file   fileID
}

// fileID tells files apart whatever path leads to them.
type fileID struct{ device, inode uint64 }

// sweepLoops detaches the loop devices whose files lie in the cluster's
// folder. The kernel takes one that is in use off only when its last user is
// gone, so it looks again until none is left.
func sweepLoops(dir Dir) error {
	return insist(func() error {
		loops, err := attachedLoops()
		if err != nil || len(loops) == 0 {
			return err // Without loops there is no need to look at every file.
		}
		files, err := filesOf(dir)
		if err != nil {
			return err
		}
		var errs []error
		for _, l := range ours(loops, files) {
			errs = append(errs, fmt.Errorf("loop device %s is still in use", l.path), l.detach())
		}
		return errors.Join(errs...)
	})
}

// ours are the loop devices over the given files, and those over files of
// filesystems that such devices hold.
func ours(loops []loop, files map[fileID]bool) []loop {
	var found []loop
	devices := map[uint64]bool{}
	for before := -1; before < len(found); {
		before = len(found)
		for _, l := range loops {
			if !devices[l.number] && (files[l.file] || devices[l.file.device]) {
				devices[l.number] = true
				found = append(found, l)
			}
		}
	}
	return found
}

func attachedLoops() ([]loop, error) {
	names, err := filepath.Glob("/sys/block/loop*/loop")
	if err != nil {
		return nil, fmt.Errorf("listing loop devices: %w", err)
	}
	var loops []loop
	for _, name := range names {
		l, err := loopAt("/dev/" + strings.Split(name, "/")[3])
		if errors.Is(err, unix.ENXIO) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			continue // It was detached meanwhile, or is none that we could have made.
		}
		if err != nil {
			return nil, fmt.Errorf("looking at loop devices: %w", err)
		}
		loops = append(loops, l)
	}
	return loops, nil
}

func loopAt(path string) (loop, error) {
	f, err := os.Open(path)
	if err != nil {
		return loop{}, err
	}
	defer f.Close()
	var device unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &device); err != nil {
		return loop{}, err
	}
	info, err := unix.IoctlLoopGetStatus64(int(f.Fd()))
	if err != nil {
		return loop{}, err
	}
	return loop{path: path, number: device.Rdev, file: fileID{info.Device, info.Inode}}, nil
}

// detach lets the device go: now, or when it is no longer in use.
func (l loop) detach() error {
	f, err := os.Open(l.path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.IoctlSetInt(int(f.Fd()), unix.LOOP_CLR_FD, 0); err != nil && !errors.Is(err, unix.ENXIO) {
		return fmt.Errorf("detaching %s: %w", l.path, err)
	}
	return nil
}

// filesOf are the files that nodes of the cluster have below their /var.
func filesOf(dir Dir) (map[fileID]bool, error) {
	files := map[fileID]bool{}
	if err := collect(dir.Shared(), files); err != nil {
		return nil, fmt.Errorf("listing the files that nodes share: %w", err)
	}
	for _, n := range dir.Nodes() {
		if err := collect(filepath.Join(n, "var"), files); err != nil {
			return nil, fmt.Errorf("listing the files of node %s: %w", filepath.Base(n), err)
		}
	}
	return files, nil
}

func collect(root string, files map[fileID]bool) error {
	return filepath.WalkDir(root, func(_ string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // The last processes of a node may still be ending.
		}
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			files[fileID{stat.Dev, stat.Ino}] = true
		}
		return nil
	})
}
