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

// Options configures a store.
type Options struct {
	// Capacity limits the sum of the sizes of volumes and snapshots, in bytes. 0 means
	// the size of the data directory's filesystem.
	Capacity int64
	// Now is the clock, time.Now if nil.
	Now func() time.Time
	// Shared allows several processes of one machine to use the data directory at the
	// same time. Volumes are then attached to one node at a time (see Attach).
	Shared bool
	// NodeOnly is for processes of a shared directory that use or attach volumes but
	// do not create or delete any. Exactly one process runs without it.
	NodeOnly bool
	// Home is the node that the data directory is on, "" for one that nodes share. It
	// becomes part of the IDs, and has at most 63 letters, digits, '-', '_' or '.'.
	Home string
	// Node is the node on which a process of a shared directory uses volumes, "" for
	// none. It is safe to be part of a path.
	Node string
	// MaxVolumes limits the volumes attached to Node, 0 for no limit.
	MaxVolumes int64

	// MaxFreeze limits how long the volumes of a group may stay frozen while they are
	// copied. A group that takes longer fails. 0 means DefaultMaxFreeze.
	MaxFreeze time.Duration

	// beforeStep lets a test crash the process before a step.
	beforeStep func(step string)
}

// DefaultMaxFreeze is longer than any disk needs to create reflinks, and as long as
// most workloads can wait for a write.
const DefaultMaxFreeze = time.Minute

// Store manages the volumes and snapshots in a data directory. Its methods are safe
// for concurrent use; calls for the same volume or snapshot are serialized.
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
	// earlier lists the other storages in which something in this directory was
	// created.
	earlier   []string
	maxFreeze time.Duration
	freezer   disk.Freezer
	locks     keyLocks
	lockFiles []*os.File

	// admission protects reserved, the capacity that calls in progress have reserved,
	// by ID.
	admission sync.Mutex
	reserved  map[string]int64
}

// Open locks the data directory for this process, creates it if needed, and completes
// or undoes what an earlier process left unfinished. It returns ErrLocked if another
// process uses the directory.
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

// start locks the data directory and recovers it.
func (s *Store) start(o Options) error {
	if err := s.lockDir(o); err != nil {
		return err
	}
	// Thaw first: workloads wait for it. A process that only attaches freezes nothing,
	// and a frozen filesystem that it finds may be the controller's current work.
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

// lockDir locks the data directory: exclusively, or shared with other processes, of
// which exactly one creates and deletes volumes.
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

// takeLock takes a flock(2) lock, which the kernel releases when the process dies.
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

// recover brings the directory to a state that some sequence of completed calls could
// have left.
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

// ifIdle calls do with the lock of an ID, unless another process has that lock. In
// that case nothing there was left by a dead process, or the repeated call recovers
// it.
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

// resumeGrowing completes an interrupted expansion. It skips a damaged volume: Health
// reports the damage, the other volumes must stay usable, and extending a truncated
// image would hide the loss.
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

// Close releases the data directory. All calls must have returned.
func (s *Store) Close() error {
	var errs []error
	for _, f := range s.lockFiles {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// Dir returns the data directory.
func (s *Store) Dir() string { return s.dir }

// Lock locks a volume for a caller that works with its image directly. It returns
// ErrPending if ctx ends first.
func (s *Store) Lock(ctx context.Context, id string) (unlock func(), err error) {
	return s.locks.lock(ctx, id)
}

// ImagePath returns where the volume's data is.
func (s *Store) ImagePath(v Volume) string { return s.volumes.image(v.ID) }
