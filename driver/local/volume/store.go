package volume

import (
	"cmp"
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
	// Shared lets several processes of one machine use the data directory at the
	// same time, in which volumes are then attached to one node at a time (Attach).
	Shared bool
	// NodeOnly is for those of them that use or attach volumes and do not make or
	// delete any. There is one process without it.
	NodeOnly bool
	// Home is the node that the data directory is on, "" for one that nodes share. It
	// becomes part of the IDs, and is at most 63 letters, digits, '-', '_' or '.'.
	Home string
	// Node is the node that a process of a shared directory uses volumes on, ""
	// for one that uses none. It is safe to be part of a path.
	Node string
	// MaxVolumes is how many volumes may be attached to Node, 0 for any number.
	MaxVolumes int64

	// MaxFreeze is for how long the volumes of a group may be held still until all
	// are copied. What takes longer fails. 0 is DefaultHold.
	MaxFreeze time.Duration

	// beforeStep lets a test have the process die before a step.
	beforeStep func(step string)
}

// DefaultMaxFreeze is longer than any disk needs to share blocks, and as long as most
// workloads can wait for a write.
const DefaultMaxFreeze = time.Minute

// Store keeps volumes and snapshots in a data directory. Its methods may be
// called at the same time; calls on one volume or snapshot follow each other.
type Store struct {
	dir       string
	capacity  int64
	now       func() time.Time
	shared    bool
	node      string
	volumes   recordDir[Volume]
	snapshots recordDir[Snapshot]
	groups    recordDir[Group]
	storage   storage
	// earlier are the other storages that something here was made in.
	earlier   []string
	maxFreeze time.Duration
	freezer   disk.Freezer
	locks     keyLocks
	lockFiles []*os.File

	// admission guards reserved, which is promised to calls under way, by ID.
	admission sync.Mutex
	reserved  map[string]int64
}

// Open takes the data directory for this process, makes it if need be, and
// finishes or undoes what an earlier process left half done. ErrLocked means
// that another process has it.
func Open(dir string, o Options) (*Store, error) {
	s := &Store{
		dir:       dir,
		capacity:  o.Capacity,
		now:       o.Now,
		shared:    o.Shared,
		node:      o.Node,
		maxFreeze: cmp.Or(o.MaxFreeze, DefaultMaxFreeze),
		freezer:   disk.Freezer{Dir: filepath.Join(dir, "frozen", o.Node), OtherNodes: o.Shared},
		locks:     keyLocks{held: map[string]chan struct{}{}},
		reserved:  map[string]int64{},
	}
	if s.now == nil {
		s.now = time.Now
	}
	t := fileOps{beforeStep: o.beforeStep}
	if t.beforeStep == nil {
		t.beforeStep = func(string) {}
	}
	s.volumes = recordDir[Volume]{files: t, dir: filepath.Join(dir, "volumes"), kind: "volume", idPattern: volumeID,
		idOf: func(v Volume) string { return v.ID }, notFound: s.notFoundError}
	s.snapshots = recordDir[Snapshot]{files: t, dir: filepath.Join(dir, "snapshots"), kind: "snapshot", idPattern: snapshotID,
		idOf: func(s Snapshot) string { return s.ID }, notFound: s.notFoundError}
	s.groups = recordDir[Group]{files: t, dir: filepath.Join(dir, "groups"), kind: "group snapshot", idPattern: groupID,
		idOf: func(g Group) string { return g.ID }, notFound: s.notFoundError}
	if s.shared {
		s.locks.file = filepath.Join(dir, "locks")
	}
	for _, d := range []string{s.volumes.dir, s.snapshots.dir, s.groups.dir, s.publishedDir(), s.attachedDir(), s.nodesDir(), s.deletedDir(), s.freezer.Dir} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("opening data directory %s: %w", dir, err)
		}
	}
	if err := s.start(o); err != nil {
		return nil, errors.Join(fmt.Errorf("opening data directory %s: %w", dir, err), s.Close())
	}
	return s, nil
}

// start takes the data directory and brings it in order.
func (s *Store) start(o Options) error {
	if err := s.lockDir(o); err != nil {
		return err
	}
	// What is frozen comes first: a workload waits for it. A process that only
	// attaches freezes nothing, and what it finds there may be the controller's work.
	if !o.NodeOnly || o.Node != "" {
		if err := s.freezer.Recover(); err != nil {
			return fmt.Errorf("recovering: %w", err)
		}
	}
	if err := s.loadStorage(o.Home); err != nil {
		return err
	}
	if !o.NodeOnly {
		if err := s.recover(); err != nil {
			return fmt.Errorf("recovering: %w", err)
		}
	}
	if s.shared && s.node != "" {
		return s.registerNode(node{MaxVolumes: o.MaxVolumes})
	}
	return nil
}

// lockDir takes the data directory: as a whole, or beside others that share it, of
// which one makes and deletes volumes.
func (s *Store) lockDir(o Options) error {
	if !s.shared {
		return s.takeLock("lock", unix.LOCK_EX)
	}
	err := s.takeLock("lock", unix.LOCK_SH)
	if err == nil && !o.NodeOnly {
		err = s.takeLock("controller.lock", unix.LOCK_EX)
	}
	return err
}

// takeLock relies on the kernel, which lets go of the lock of a dead process.
func (s *Store) takeLock(name string, how int) error {
	path := filepath.Join(s.dir, name)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	s.lockFiles = append(s.lockFiles, f)
	err = unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("%w: another process holds %s; stop it, or give this one a --data-dir of its own", ErrLocked, path)
	}
	if err != nil {
		return fmt.Errorf("locking %s: %w", path, err)
	}
	return nil
}

// recover brings the directory to a state that some sequence of whole calls
// could have left.
func (s *Store) recover() error {
	if err := s.volumes.sweep(s.ifIdle); err != nil {
		return err
	}
	if err := s.groups.sweep(s.ifIdle); err != nil {
		return err
	}
	if err := s.sweepMembers(); err != nil {
		return err
	}
	if err := s.snapshots.sweep(s.ifIdle); err != nil {
		return err
	}
	ids, err := s.volumes.list()
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := s.ifIdle(id, func() error { return s.resumeGrowing(id) }); err != nil {
			return err
		}
	}
	return nil
}

// ifIdle does something about an ID, unless another process is busy with that:
// then nothing there was left by a dead one, or it is done when it is asked for again.
func (s *Store) ifIdle(id string, do func() error) error {
	now, cancel := context.WithCancel(context.Background())
	cancel()
	unlock, err := s.locks.lock(now, id)
	if errors.Is(err, ErrPending) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unlock()
	return do()
}

// resumeGrowing takes up an interrupted expansion. Damage is reported by Health and
// must not keep the other volumes from being used, and an image that lost its
// end must not be made to look whole.
func (s *Store) resumeGrowing(id string) error {
	v, err := s.volumes.get(id)
	if errors.Is(err, ErrDamaged) || v.Growing == 0 || fileSize(s.volumes.image(id)) < v.Size {
		return nil
	}
	if err == nil {
		_, err = s.finishGrowing(v)
	}
	return err
}

// Close gives the data directory up. Calls must have ended.
func (s *Store) Close() error {
	var errs []error
	for _, f := range s.lockFiles {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
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
