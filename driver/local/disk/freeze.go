package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// FIFREEZE and FITHAW are _IOWR('X', 119, int) and _IOWR('X', 120, int).
const (
	fiFreeze = 0xc0045877
	fiThaw   = 0xc0045878
)

// ErrThawed reports a filesystem that another process thawed while this one copied it.
// The copy is not usable.
var ErrThawed = errors.New("it did not stay frozen")

// Freezer freezes filesystems while they are copied. A frozen filesystem blocks its
// writers forever if the process dies. Each freeze is therefore recorded in Dir first,
// and Recover thaws what a dead process left.
type Freezer struct {
	// Dir is the directory of the records. It must exist.
	Dir string
	// OtherNodes is true if workloads may use devices through mounts that this process
	// does not see. A device without a visible mount may then be in use.
	OtherNodes bool
}

// Freeze is the result of Quiesce.
type Freeze struct {
	// Quiesced is true if nothing writes to the image until Thaw. Thaw fails with
	// ErrThawed if something did.
	Quiesced bool
	// Thaw lets writers continue. It must be called once, after the copy. The copy is
	// usable only if Thaw succeeds.
	Thaw func() error
}

// Quiesce prepares image for a copy: it flushes and freezes a mounted filesystem, and
// flushes a device. Where that is not possible, without root or because a workload
// uses the raw device, Quiesced is false and only a reflink copy is consistent.
func (f Freezer) Quiesce(image string) (Freeze, error) {
	quiesced := Freeze{Quiesced: true, Thaw: func() error { return nil }}
	devices, err := Find(image)
	if err != nil || len(devices) == 0 {
		return quiesced, err
	}
	changing := Freeze{Thaw: quiesced.Thaw}
	if RequireRoot() != nil {
		return changing, nil //nolint:nilerr // Without root the driver cannot freeze it, and the copy fails.
	}
	for _, d := range devices {
		mounts, err := d.Mounts()
		if err != nil {
			return Freeze{}, err
		}
		if len(mounts) > 0 {
			return f.freeze(image, d, mounts[0].Path)
		}
		idle, err := d.flushIfIdle()
		if f.OtherNodes {
			return changing, nil // Only the node that uses it may be able to flush it.
		}
		if err != nil || !idle {
			return changing, err
		}
	}
	return quiesced, nil
}

// flushIfIdle flushes a device without mounts and reports whether no workload uses it.
func (d Device) flushIfIdle() (bool, error) {
	if err := d.Flush(); err != nil {
		return false, err
	}
	nodes, err := d.Nodes()
	// An autoclear device without a visible mount has a user on another node.
	return len(nodes) == 0 && !d.AutoClear, err
}

// freeze freezes the filesystem that is mounted at mounted.
func (f Freezer) freeze(image string, d Device, mounted string) (Freeze, error) {
	dir, err := os.Open(mounted)
	if err != nil {
		return Freeze{}, fmt.Errorf("freezing %s: %w", mounted, err)
	}
	s := &frozenFilesystem{dir: dir, record: filepath.Join(f.Dir, filepath.Base(image)), device: d}
	freeze, err := s.start()
	if err != nil {
		return Freeze{}, errors.Join(fmt.Errorf("freezing %s: %w", mounted, err), dir.Close())
	}
	return freeze, nil
}

// frozenFilesystem is a filesystem that this process or another one froze. Any process
// may thaw it, so finishOwn and finishForeign check in the end that it stayed frozen.
type frozenFilesystem struct {
	dir           *os.File
	record        string
	device        Device
	writesAtStart writes
}

func (s *frozenFilesystem) start() (freeze Freeze, err error) {
	if s.writesAtStart, err = s.device.writes(); err != nil {
		return Freeze{}, err
	}
	ours, err := s.freeze()
	switch {
	case err != nil:
		return Freeze{}, err
	case !ours && s.writesAtStart.counted:
		return Freeze{Quiesced: true, Thaw: s.finishForeign}, nil
	case !ours:
		return Freeze{Thaw: s.dir.Close}, nil
	}
	// Do not count what the freeze itself wrote.
	if s.writesAtStart, err = s.device.writes(); err != nil {
		return Freeze{}, errors.Join(err, s.thaw())
	}
	return Freeze{Quiesced: true, Thaw: s.finishOwn}, nil
}

// freeze reports whether this process froze the filesystem. Otherwise another process
// had frozen it and will thaw it. The record and the freeze both survive the process;
// neither survives a reboot.
func (s *frozenFilesystem) freeze() (ours bool, err error) {
	if err := os.WriteFile(s.record, []byte(s.dir.Name()), 0o600); err != nil {
		return false, fmt.Errorf("recording it: %w", err)
	}
	err = unix.IoctlSetInt(int(s.dir.Fd()), fiFreeze, 0)
	if err == nil {
		return true, nil
	}
	if errors.Is(err, unix.EBUSY) {
		err = nil
	}
	return false, errors.Join(err, os.Remove(s.record))
}

// thaw fails with ErrThawed if another process thawed the filesystem before.
func (s *frozenFilesystem) thaw() error {
	err := unix.IoctlSetInt(int(s.dir.Fd()), fiThaw, 0)
	if errors.Is(err, unix.EINVAL) {
		err = fmt.Errorf("%w: somebody else thawed %s", ErrThawed, s.dir.Name())
	} else if err != nil { // The record stays, for Recover.
		return fmt.Errorf("thawing %s (run \"fsfreeze --unfreeze %[1]s\"): %w", s.dir.Name(), err)
	}
	return errors.Join(err, os.Remove(s.record))
}

// finishOwn thaws what this process froze.
func (s *frozenFilesystem) finishOwn() error {
	err := s.checkUnwritten() // while it is still frozen
	return errors.Join(err, s.thaw(), s.dir.Close())
}

// finishForeign ends the use of a filesystem that another process froze. It succeeds
// if the filesystem is still frozen and nothing was written meanwhile.
func (s *frozenFilesystem) finishForeign() error {
	ours, err := s.freeze()
	switch {
	case err == nil && ours:
		err = errors.Join(fmt.Errorf("%w: somebody else had frozen %s, and thawed it", ErrThawed, s.dir.Name()), s.thaw())
	case err == nil:
		err = s.checkUnwritten()
	}
	return errors.Join(err, s.dir.Close())
}

// checkUnwritten fails if the device was written to since it was frozen.
func (s *frozenFilesystem) checkUnwritten() error {
	now, err := s.device.writes()
	if err == nil && (now != s.writesAtStart || now.pending > 0) {
		err = fmt.Errorf("%w: somebody else thawed %s for a while", ErrThawed, s.dir.Name())
	}
	return err
}

// Recover thaws what a dead process froze.
func (f Freezer) Recover() error {
	records, err := os.ReadDir(f.Dir)
	if err != nil {
		return err
	}
	for _, r := range records {
		if r.IsDir() {
			continue // the records of another node
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

// thaw succeeds if the filesystem at mounted is not frozen or does not exist.
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
