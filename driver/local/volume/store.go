package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/driver/local/disk"
)

// Options are what a store can be told.
type Options struct {
	// Capacity bounds the sum of the sizes of volumes and snapshots, in bytes.
	// 0 stands for what the filesystem of the data directory has.
	Capacity int64
	// Now is the clock. nil is the machine's.
	Now func() time.Time

	// before lets a test have the process die before a step.
	before func(step string)
}

// Store keeps volumes and snapshots in a data directory. Its methods may be
// called at the same time; calls on one volume or snapshot follow each other.
type Store struct {
	dir       string
	capacity  int64
	now       func() time.Time
	volumes   shelf[Volume]
	snapshots shelf[Snapshot]
	freezer   disk.Freezer
	locks     keyLocks
	lockFile  *os.File

	// admission guards reserved, which is promised to calls under way, by ID.
	admission sync.Mutex
	reserved  map[string]int64
}

// Open takes the data directory for this process, makes it if need be, and
// finishes or undoes what an earlier process left half done. ErrLocked means
// that another process has it.
func Open(dir string, o Options) (*Store, error) {
	s := &Store{
		dir:      dir,
		capacity: o.Capacity,
		now:      o.Now,
		freezer:  disk.Freezer{Dir: filepath.Join(dir, "frozen")},
		locks:    keyLocks{held: map[string]chan struct{}{}},
		reserved: map[string]int64{},
	}
	if s.now == nil {
		s.now = time.Now
	}
	t := tree{before: o.before}
	if t.before == nil {
		t.before = func(string) {}
	}
	s.volumes = shelf[Volume]{tree: t, dir: filepath.Join(dir, "volumes"), kind: "volume", ids: volumeID,
		of: func(v Volume) string { return v.ID }}
	s.snapshots = shelf[Snapshot]{tree: t, dir: filepath.Join(dir, "snapshots"), kind: "snapshot", ids: snapshotID,
		of: func(s Snapshot) string { return s.ID }}
	for _, d := range []string{s.volumes.dir, s.snapshots.dir, s.publishedDir(), s.freezer.Dir} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("opening data directory %s: %w", dir, err)
		}
	}
	if err := s.takeLock(); err != nil {
		return nil, err
	}
	if err := s.recover(); err != nil {
		return nil, errors.Join(fmt.Errorf("recovering data directory %s: %w", dir, err), s.Close())
	}
	return s, nil
}

// takeLock relies on the kernel, which lets go of the lock of a dead process.
func (s *Store) takeLock() error {
	path := filepath.Join(s.dir, "lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("opening data directory %s: %w", s.dir, err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return errors.Join(fmt.Errorf("%w: another process holds %s; stop it, or give this one a --data-dir of its own", ErrLocked, path), f.Close())
	}
	if err != nil {
		return errors.Join(fmt.Errorf("locking data directory %s: %w", s.dir, err), f.Close())
	}
	s.lockFile = f
	return nil
}

// recover brings the directory to a state that some sequence of whole calls
// could have left. What is frozen comes first: a workload waits for it.
func (s *Store) recover() error {
	if err := s.freezer.Recover(); err != nil {
		return err
	}
	if err := s.volumes.sweep(); err != nil {
		return err
	}
	if err := s.snapshots.sweep(); err != nil {
		return err
	}
	ids, err := s.volumes.list()
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := s.resumeGrowing(id); err != nil {
			return err
		}
	}
	return nil
}

// resumeGrowing takes up an interrupted expansion. Damage is reported by Health and
// must not keep the other volumes from being used, and an image that lost its
// end must not be made to look whole.
func (s *Store) resumeGrowing(id string) error {
	v, err := s.volumes.get(id)
	if errors.Is(err, ErrDamaged) || v.Growing == 0 || length(s.volumes.image(id)) < v.Size {
		return nil
	}
	if err == nil {
		_, err = s.finishGrowing(v)
	}
	return err
}

// Close gives the data directory up. Calls must have ended.
func (s *Store) Close() error {
	return s.lockFile.Close()
}

// Dir returns the data directory.
func (s *Store) Dir() string { return s.dir }

// Lock takes a volume's lock for a caller that works with its image itself. It
// waits until ctx ends, which is ErrPending.
func (s *Store) Lock(ctx context.Context, id string) (unlock func(), err error) {
	return s.locks.lock(ctx, id)
}

// ImagePath returns where the volume's data is.
func (s *Store) ImagePath(v Volume) string { return s.volumes.image(v.ID) }
