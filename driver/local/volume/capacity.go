package volume

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/driver/local/disk"
)

// AvailableCapacity returns how many bytes may still be reserved, in whole steps.
func (s *Store) AvailableCapacity() (int64, error) {
	s.admission.Lock()
	defer s.admission.Unlock()
	left, _, err := s.availableLocked()
	return left / Step * Step, err
}

// DiskFree returns how many bytes are free on the filesystem of the data directory. It
// fails if that filesystem is not usable.
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

// reserve reserves size for id until release is called. Concurrent reservations add
// up, so that two calls cannot get the same bytes.
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

// availableLocked requires the admission lock.
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

// sumPromised returns the sum of all recorded sizes, and how much of the disk the
// images certainly occupy already. A reflinked image counts as occupying nothing:
// filling it may need its full size.
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

// allocated counts a missing image as 0, so that a damaged volume does not block the
// others.
func allocated(image string) int64 {
	n, err := disk.Allocated(image)
	if err != nil {
		return 0
	}
	return n
}

// volumeOrStub returns the record of a volume. For a damaged one it returns the ID and
// the size of the image.
func (s *Store) volumeOrStub(id string) Volume {
	v, err := s.volumes.get(id)
	if err != nil {
		return Volume{ID: id, Size: fileSize(s.volumes.image(id))}
	}
	return v
}

// snapshotOrStub is volumeOrStub for snapshots.
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

// wrapNoSpace turns ENOSPC and EDQUOT into ErrOutOfCapacity.
func wrapNoSpace(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrOutOfCapacity, err)
	}
	return err
}
