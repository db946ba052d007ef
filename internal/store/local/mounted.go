package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/store"
)

func (s *Store) notMountedError() error {
	return fmt.Errorf("%w: no volume is mounted at %s: it has to be mounted there", store.ErrUnavailable, s.dir)
}

// openVolume opens the root of the volume that is mounted at the store's directory.
func (s *Store) openVolume() (*os.Root, error) {
	root, err := os.OpenRoot(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, s.notMountedError()
	}
	if err != nil {
		return nil, s.wrap("opening the directory", err)
	}
	if err := s.checkMounted(root); err != nil {
		root.Close()
		return nil, err
	}
	return root, nil
}

// checkMounted returns an error if an open directory is not the root of a mount. Its path
// does not tell: a volume may be unmounted at any time, and the directory stays a moment
// longer.
func (s *Store) checkMounted(root *os.Root) error {
	dir, err := root.Open(".")
	if err != nil {
		return s.wrap("opening the directory", err)
	}
	defer dir.Close()
	var stat unix.Statx_t
	if err := unix.Statx(int(dir.Fd()), "", unix.AT_EMPTY_PATH, 0, &stat); err != nil {
		return s.wrap("finding out whether a volume is mounted", err)
	}
	if stat.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT == 0 {
		return errors.New("the kernel does not say whether a volume is mounted at " + s.dir + ": Linux 5.8 or newer does")
	}
	if stat.Attributes&unix.STATX_ATTR_MOUNT_ROOT == 0 {
		return s.notMountedError()
	}
	return nil
}
