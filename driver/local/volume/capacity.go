package volume

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/driver/local/disk"
)

// AvailableCapacity returns how many bytes may still be promised, in whole steps.
func (s *Store) AvailableCapacity() (int64, error) {
	s.admission.Lock()
	defer s.admission.Unlock()
	left, _, err := s.availableLocked()
	return left / Step * Step, err
}

// DiskFree returns how many bytes are free where the data directory is, and an error
// when that cannot be used at all.
func (s *Store) DiskFree() (free int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(s.volumes.dir, &st); err != nil {
		return 0, fmt.Errorf("reaching data directory %s: %w", s.dir, err)
	}
	if st.Flags&unix.ST_RDONLY != 0 {
		return 0, fmt.Errorf("the filesystem of data directory %s is read-only; see the kernel's log for the reason", s.dir)
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// reserve promises size to id until release. What a call needs is added to what
// others were promised at the same time, so that two cannot get the last byte.
func (s *Store) reserve(id string, size int64) (release func(), err error) {
	s.admission.Lock()
	defer s.admission.Unlock()
	left, total, err := s.availableLocked()
	if err != nil {
		return nil, err
	}
	if size > left {
		return nil, fmt.Errorf("%w: %s are asked for and %s of %s are left in %s", ErrOutOfCapacity, formatSize(size), formatSize(left), formatSize(total), s.dir)
	}
	s.reserved[id] += size
	return func() {
		s.admission.Lock()
		defer s.admission.Unlock()
		delete(s.reserved, id)
	}, nil
}

// availableLocked needs the admission lock.
func (s *Store) availableLocked() (left, total int64, err error) {
	promised, own, err := s.sumPromised()
	if err != nil {
		return 0, 0, err
	}
	total = s.capacity
	if total == 0 {
		free, err := s.DiskFree()
		if err != nil {
			return 0, 0, err
		}
		total = free + own
	}
	for _, r := range s.reserved {
		promised += r
	}
	return max(0, total-promised), total, nil
}

// sumPromised returns what is promised to all items on record, and how much of the disk
// they surely have already. An image that began by sharing blocks is taken to
// have none of its own: to be filled it may need all of its size.
func (s *Store) sumPromised() (promised, own int64, err error) {
	ids, err := s.volumes.list()
	if err != nil {
		return 0, 0, err
	}
	for _, id := range ids {
		v := s.volumeOrStub(id)
		promised += v.promised()
		if !v.Shared {
			own += allocated(s.volumes.image(id))
		}
	}
	ids, err = s.snapshots.list()
	if err != nil {
		return 0, 0, err
	}
	for _, id := range ids {
		snap := s.snapshotOrStub(id)
		promised += snap.Size
		if !snap.Shared {
			own += allocated(s.snapshots.image(id))
		}
	}
	return promised, own, nil
}

// allocated counts a missing image as nothing: its volume is damaged, and the
// others go on.
func allocated(image string) int64 {
	n, err := disk.Allocated(image)
	if err != nil {
		return 0
	}
	return n
}

// volumeOrStub returns what is known of a volume, if only its ID and the size of its image.
func (s *Store) volumeOrStub(id string) Volume {
	v, err := s.volumes.get(id)
	if err != nil {
		return Volume{ID: id, Size: fileSize(s.volumes.image(id))}
	}
	return v
}

// snapshotOrStub is volume for snapshots.
func (s *Store) snapshotOrStub(id string) Snapshot {
	snap, err := s.snapshots.get(id)
	if err != nil {
		return Snapshot{ID: id, Size: fileSize(s.snapshots.image(id))}
	}
	return snap
}

func fileSize(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// wrapNoSpace names a full disk for what it is.
func wrapNoSpace(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrOutOfCapacity, err)
	}
	return err
}
