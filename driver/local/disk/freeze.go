package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// The kernel's FIFREEZE and FITHAW, _IOWR('X', 119, int) and _IOWR('X', 120, int).
const (
	fiFreeze = 0xc0045877
	fiThaw   = 0xc0045878
)

// Freezer holds images still while they are copied. A frozen filesystem blocks
// its writers for good if the process dies, so each freeze is on record in Dir
// before it happens, and Recover undoes what a dead process left.
type Freezer struct {
	// Dir is where the records are kept. It must exist.
	Dir string
	// Blind is true when workloads may use devices where this process does not see
	// them. A device without a mount is then not taken for idle.
	Blind bool
}

// Hold is what Quiesce could do.
type Hold struct {
	// Still is true when nobody can write to the image until Release.
	Still bool
	// Release lets writers go on. It must be called once.
	Release func() error
}

// Quiesce brings image to a state that a copy of it can start from: a mounted
// filesystem is flushed and frozen, a device is flushed. Where that is not
// possible, without root or because a workload has the device itself, Still is
// false and only a copy in one instant is worth anything.
func (f Freezer) Quiesce(image string) (Hold, error) {
	free := Hold{Still: true, Release: func() error { return nil }}
	devices, err := Find(image)
	if err != nil || len(devices) == 0 {
		return free, err
	}
	moving := Hold{Release: free.Release}
	if RequireRoot() != nil {
		return moving, nil //nolint:nilerr // Without root it cannot be frozen, and the copy says so.
	}
	for _, d := range devices {
		mounts, err := d.Mounts()
		if err != nil {
			return Hold{}, err
		}
		if len(mounts) > 0 {
			return f.freeze(image, mounts[0].Path)
		}
		idle, err := d.idle()
		if f.Blind {
			return moving, nil // Whoever has it may also be the only one who can flush it.
		}
		if err != nil || !idle {
			return moving, err
		}
	}
	return free, nil
}

// idle flushes a device without mounts and tells whether no workload has it.
func (d Device) idle() (bool, error) {
	if err := d.Flush(); err != nil {
		return false, err
	}
	nodes, err := d.Nodes()
	// A passing device without a mount that we see has a user elsewhere.
	return len(nodes) == 0 && !d.Passing, err
}

func (f Freezer) freeze(image, mounted string) (Hold, error) {
	dir, err := os.Open(mounted)
	if err != nil {
		return Hold{}, fmt.Errorf("freezing %s: %w", mounted, err)
	}
	record := filepath.Join(f.Dir, filepath.Base(image))
	if err := f.write(record, mounted); err != nil {
		return Hold{}, errors.Join(fmt.Errorf("recording the freeze of %s: %w", mounted, err), dir.Close())
	}
	err = unix.IoctlSetInt(int(dir.Fd()), fiFreeze, 0)
	if errors.Is(err, unix.EBUSY) {
		// Somebody else froze it, and it is theirs to thaw.
		return Hold{Still: true, Release: func() error { return nil }}, errors.Join(os.Remove(record), dir.Close())
	}
	if err != nil {
		return Hold{}, errors.Join(fmt.Errorf("freezing %s: %w", mounted, err), os.Remove(record), dir.Close())
	}
	release := func() error {
		if err := unix.IoctlSetInt(int(dir.Fd()), fiThaw, 0); err != nil {
			return errors.Join(fmt.Errorf("thawing %s (run \"fsfreeze --unfreeze %s\"): %w", mounted, mounted, err), dir.Close())
		}
		return errors.Join(os.Remove(record), dir.Close())
	}
	return Hold{Still: true, Release: release}, nil
}

// write makes the record last even if the machine dies: the freeze does not, but
// a record that came back without its freeze does no harm.
func (f Freezer) write(path, mounted string) error {
	return os.WriteFile(path, []byte(mounted), 0o600)
}

// Recover thaws what a process that died had frozen.
func (f Freezer) Recover() error {
	records, err := os.ReadDir(f.Dir)
	if err != nil {
		return err
	}
	for _, r := range records {
		if r.IsDir() {
			continue // another freezer's
		}
		path := filepath.Join(f.Dir, r.Name())
		mounted, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := thaw(string(mounted)); err != nil {
			return err
		}
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return nil
}

// thaw succeeds when the filesystem at mounted is not frozen, or gone.
func thaw(mounted string) error {
	dir, err := os.Open(mounted)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("thawing %s: %w", mounted, err)
	}
	defer dir.Close()
	if err := unix.IoctlSetInt(int(dir.Fd()), fiThaw, 0); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("thawing %s: %w", mounted, err)
	}
	return nil
}
