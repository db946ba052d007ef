package disk

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// ErrSourceChanging reports a copy without reflinks of a source that may change during
// the copy. The result would not have the state of any point in time.
var ErrSourceChanging = errors.New("the source is being written to")

// Copy creates the file to with the content of from. If the filesystem supports
// reflinks, Copy creates one, which is atomic even while from is written to. Otherwise
// it copies the data and keeps the holes, which requires that from is quiesced. It
// reports whether to is a reflink. The caller removes an incomplete file and syncs a
// complete one.
func Copy(to, from string, quiesced bool) (shared bool, err error) {
	src, err := os.Open(from)
	if err != nil {
		return false, err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()

	switch err := unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())); {
	case err == nil:
		return true, nil
	case !isReflinkUnsupported(err):
		return false, fmt.Errorf("sharing the blocks of %s: %w", from, err)
	case !quiesced:
		return false, fmt.Errorf("copying %s: %w, and its filesystem cannot share blocks", from, ErrSourceChanging)
	}
	if err := copySparse(dst, src); err != nil {
		return false, fmt.Errorf("copying %s: %w", from, err)
	}
	return false, nil
}

// isReflinkUnsupported reports whether the filesystem does not support reflinks, as
// opposed to a failed one.
func isReflinkUnsupported(err error) bool {
	for _, no := range []error{unix.EOPNOTSUPP, unix.ENOTTY, unix.ENOSYS, unix.EXDEV, unix.EINVAL} {
		if errors.Is(err, no) {
			return true
		}
	}
	return false
}

// copySparse copies extent by extent. The runtime uses copy_file_range, so the
// data does not pass through this process.
func copySparse(dst, src *os.File) error {
	info, err := src.Stat()
	if err != nil {
		return err
	}
	for at := int64(0); at < info.Size(); {
		start, end, err := nextExtent(src, at)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if _, err := src.Seek(start, io.SeekStart); err != nil {
			return err
		}
		if _, err := dst.Seek(start, io.SeekStart); err != nil {
			return err
		}
		if _, err := io.CopyN(dst, src, end-start); err != nil {
			return err
		}
		at = end
	}
	return dst.Truncate(info.Size())
}

// nextExtent returns the next range of data at or after at, io.EOF if there is none.
func nextExtent(f *os.File, at int64) (start, end int64, err error) {
	start, err = f.Seek(at, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return 0, 0, io.EOF
	}
	if err != nil {
		return 0, 0, err
	}
	end, err = f.Seek(start, unix.SEEK_HOLE)
	return start, end, err
}

// Allocated returns how many bytes of the disk the file occupies. Blocks shared
// with other files count in each of them.
func Allocated(path string) (int64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return st.Blocks * 512, nil // st_blocks is in 512 byte units whatever the block size
}
