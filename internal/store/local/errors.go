package local

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/store"
)

// kinds says what an error of the system means, and what to do. The first one that fits
// counts.
var kinds = []struct {
	errs   []syscall.Errno
	kind   error
	advice string
}{
	{[]syscall.Errno{unix.ENOSPC}, store.ErrFull, "free space on its filesystem, or delete checkpoints"},
	{[]syscall.Errno{unix.EDQUOT}, store.ErrFull, "raise the quota, or delete checkpoints"},
	{[]syscall.Errno{unix.EFBIG}, store.ErrFull, "the filesystem or a limit of the process does not permit files of this size"},
	{[]syscall.Errno{unix.EROFS}, store.ErrInvalid, "it is on a read-only filesystem: remount it writable, or choose another directory"},
	{[]syscall.Errno{unix.EACCES, unix.EPERM}, store.ErrDenied, "give the directory to the user that Holdfast runs as, with mode 0700"},
	{[]syscall.Errno{unix.ENOTDIR, unix.ELOOP}, store.ErrInvalid, "a file or a link is where a directory must be: remove it, or choose another directory"},
	{[]syscall.Errno{unix.EISDIR}, store.ErrInvalid, "a directory is where the object must be: remove it"},
	{[]syscall.Errno{unix.EIO, unix.ENODEV, unix.ENXIO, unix.ESTALE, unix.ETIMEDOUT, unix.EHOSTDOWN, unix.ENOTCONN, unix.ESHUTDOWN}, store.ErrUnavailable, "see the kernel's log for the state of its disk or server"},
	{[]syscall.Errno{unix.EMFILE, unix.ENFILE, unix.ENOMEM}, store.ErrUnavailable, "the node lacks a resource for a moment"},
}

// wrap says what failed, where and what to do. It returns nil for nil.
func (s *Store) wrap(doing string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	for _, k := range kinds {
		for _, errno := range k.errs {
			if errors.Is(err, errno) {
				return fmt.Errorf("%s in %s: %w: %w: %s", doing, s.dir, k.kind, err, k.advice)
			}
		}
	}
	return fmt.Errorf("%s in %s: %w", doing, s.dir, err)
}
