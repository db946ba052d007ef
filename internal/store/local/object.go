package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/store"
)

// openRegular opens a regular file. A file of another kind is not an object: somebody else
// has put it there.
func openRegular(root *os.Root, name string) (*os.File, error) {
	named, err := root.Lstat(name)
	switch {
	case err != nil:
		return nil, err
	case named.IsDir(): // It is in the keys of objects.
		return nil, fs.ErrNotExist
	case !named.Mode().IsRegular():
		return nil, fmt.Errorf("%w: it is no regular file: remove it", store.ErrInvalid)
	}
	// If a FIFO or a link has replaced the file, opening must not block or follow it.
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	opened, err := f.Stat()
	if err == nil && !os.SameFile(named, opened) {
		err = fmt.Errorf("%w: it was replaced while it was opened", store.ErrInvalid)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func newObject(ctx context.Context, s *Store, key string, f *os.File) (store.Object, error) {
	stat, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, s.wrap("opening "+key, err)
	}
	return &object{ctx: ctx, store: s, key: key, file: f, size: stat.Size()}, nil
}

type object struct {
	ctx   context.Context //nolint:containedctx // the context of Open limits what is read, see store.Store
	store *Store
	key   string
	file  *os.File
	size  int64
}

func (o *object) Size() int64 { return o.size }

func (o *object) Close() error { return o.file.Close() }

func (o *object) ReadAt(p []byte, offset int64) (int, error) {
	if err := o.ctx.Err(); err != nil {
		return 0, err
	}
	if offset < 0 {
		return 0, fmt.Errorf("reading %s at %d: the offset is negative", o.key, offset)
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := o.file.ReadAt(p, offset)
	if errors.Is(err, io.EOF) {
		return n, io.EOF
	}
	return n, o.store.wrap("reading "+o.key, err)
}

func (o *object) NewReader(offset, length int64) (io.ReadCloser, error) {
	if err := store.ValidateRange(o, offset, length); err != nil {
		return nil, fmt.Errorf("reading %s: %w", o.key, err)
	}
	return io.NopCloser(&fullReader{r: io.NewSectionReader(o, offset, length), left: length}), nil
}

// A fullReader returns io.ErrUnexpectedEOF if a file has become shorter since it was
// opened.
type fullReader struct {
	r    io.Reader
	left int64
}

func (r *fullReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.left -= int64(n)
	if errors.Is(err, io.EOF) && r.left > 0 {
		return n, io.ErrUnexpectedEOF
	}
	return n, err
}
