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

// ErrThawed is an image that was held still and was written to all the same: somebody
// else thawed its filesystem. What was copied meanwhile is worth nothing.
var ErrThawed = errors.New("it did not stay frozen")

// Freezer holds images still while they are copied. A frozen filesystem blocks
// its writers for good if the process dies, so each freeze is on record in Dir
// before it happens, and Recover undoes what a dead process left.
type Freezer struct {
	// Dir is where the records are kept. It must exist.
	Dir string
	// OtherNodes is true when workloads may use devices where this process does not see
	// them. A device without a mount is then not taken for idle.
	OtherNodes bool
}

// Freeze is what Quiesce could do.
type Freeze struct {
	// Quiesced is true when nobody writes to the image until Release, which fails
	// with ErrThawed if somebody did.
	Quiesced bool
	// Thaw lets writers go on. It must be called once, after the copy, which
	// is good if it succeeds.
	Thaw func() error
}

// Quiesce brings image to a state that a copy of it can start from: a mounted
// filesystem is flushed and frozen, a device is flushed. Where that is not
// possible, without root or because a workload has the device itself, Still is
// false and only a copy in one instant is worth anything.
func (f Freezer) Quiesce(image string) (Freeze, error) {
	quiesced := Freeze{Quiesced: true, Thaw: func() error { return nil }}
	devices, err := Find(image)
	if err != nil || len(devices) == 0 {
		return quiesced, err
	}
	changing := Freeze{Thaw: quiesced.Thaw}
	if RequireRoot() != nil {
		return changing, nil //nolint:nilerr // Without root it cannot be frozen, and the copy says so.
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
			return changing, nil // Whoever has it may also be the only one who can flush it.
		}
		if err != nil || !idle {
			return changing, err
		}
	}
	return quiesced, nil
}

// flushIfIdle flushes a device without mounts and tells whether no workload has it.
func (d Device) flushIfIdle() (bool, error) {
	if err := d.Flush(); err != nil {
		return false, err
	}
	nodes, err := d.Nodes()
	// A passing device without a mount that we see has a user elsewhere.
	return len(nodes) == 0 && !d.AutoClear, err
}

// freeze holds the filesystem that is mounted there still.
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

// frozenFilesystem is a filesystem that is frozen, by this process or by somebody else.
// Whoever froze it, anybody may thaw it, so that it was still is known in the end.
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
	// What the freeze itself wrote does not count.
	if s.writesAtStart, err = s.device.writes(); err != nil {
		return Freeze{}, errors.Join(err, s.thaw())
	}
	return Freeze{Quiesced: true, Thaw: s.finishOwn}, nil
}

// freeze tells whether it is this process that froze it. Otherwise somebody else
// had, and it is theirs to thaw. The record outlives the process, as the freeze does;
// neither has to outlive the machine.
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

// thaw fails with ErrThawed if somebody else did it before.
func (s *frozenFilesystem) thaw() error {
	err := unix.IoctlSetInt(int(s.dir.Fd()), fiThaw, 0)
	if errors.Is(err, unix.EINVAL) {
		err = fmt.Errorf("%w: somebody else thawed %s", ErrThawed, s.dir.Name())
	} else if err != nil { // The record stays, for Recover.
		return fmt.Errorf("thawing %s (run \"fsfreeze --unfreeze %[1]s\"): %w", s.dir.Name(), err)
	}
	return errors.Join(err, os.Remove(s.record))
}

// finishOwn releases what this process froze.
func (s *frozenFilesystem) finishOwn() error {
	err := s.checkUnwritten() // as long as nobody may write
	return errors.Join(err, s.thaw(), s.dir.Close())
}

// finishForeign ends the use of what somebody else froze. It is as good as frozen by this
// process if it still is and nothing was written meanwhile.
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
