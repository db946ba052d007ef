package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/store"
)

// Create creates a partial file.
func (s *Store) Create(ctx context.Context, key string) (store.Writer, error) {
	if err := store.ValidateKey(key); err != nil {
		return nil, err
	}
	root, err := s.openRoot(ctx)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	if _, err := root.Lstat(key); err == nil {
		return nil, s.existsError(key)
	}
	f, partial, err := s.createPartial(ctx, root, key)
	if err != nil {
		return nil, err
	}
	return &writer{ctx: ctx, store: s, key: key, file: f, partial: partial}, nil
}

func (s *Store) existsError(key string) error {
	return fmt.Errorf("%w: %s: delete it before another one is written", store.ErrExists, s.path(key))
}

// A writer writes one object to a partial file.
type writer struct {
	ctx     context.Context //nolint:containedctx // the context of Create limits the writer, see store.Writer
	store   *Store
	key     string
	partial string   // the file's path; "" when it is gone
	file    *os.File // nil when it is closed
	err     error    // of Write

	written, flushed int64 // bytes of the file: what was written, and what the disk was told of
}

// flushSize is how much is written, in bytes, before the disk begins with it. By itself the
// kernel collects up to a tenth of the node's memory, and everything would wait for the disk
// at the end.
const flushSize = 8 << 20

func (w *writer) Write(p []byte) (int, error) {
	if w.err == nil {
		w.err = w.ctx.Err()
	}
	if w.err != nil {
		return 0, w.err
	}
	n, err := w.file.Write(p)
	w.err = w.store.wrap("writing "+w.key, err)
	w.written += int64(n)
	if w.written-w.flushed >= flushSize {
		w.flush()
	}
	return n, w.err
}

// flush has the disk begin to write, without waiting for it. It is only a hint: an error
// shows when the file is synced.
func (w *writer) flush() {
	_ = unix.SyncFileRange(int(w.file.Fd()), w.flushed, w.written-w.flushed, unix.SYNC_FILE_RANGE_WRITE)
	w.flushed = w.written
}

// sync makes what was written survive a power cut, and closes the file.
func (w *writer) sync() error {
	if w.file == nil {
		return fmt.Errorf("writing %s: %w", w.key, fs.ErrClosed)
	}
	err := errors.Join(w.file.Sync(), w.file.Close())
	w.file = nil
	return w.store.wrap("writing "+w.key+" to disk", err)
}

func (w *writer) Commit() error {
	if w.err == nil {
		w.err = w.ctx.Err()
	}
	if w.err == nil {
		w.err = w.sync()
	}
	if w.err == nil {
		w.err = w.publish()
	}
	if w.err != nil {
		return errors.Join(w.err, w.Abort())
	}
	return nil
}

// publish gives the file its name.
func (w *writer) publish() error {
	root, err := w.store.openRoot(context.WithoutCancel(w.ctx))
	if err != nil {
		return err
	}
	defer root.Close()
	dir, err := root.Open(path.Dir(w.key))
	if err != nil {
		return w.store.wrap("opening the directory of "+w.key, err)
	}
	defer dir.Close()
	err = w.store.rename(dir, path.Base(w.partial), path.Base(w.key))
	switch {
	case errors.Is(err, fs.ErrExist):
		return w.store.existsError(w.key)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("writing %s: it was deleted while it was written: write it again", w.store.path(w.key))
	case err != nil:
		return w.store.wrap("naming "+w.key, err)
	}
	w.partial = ""
	if err := dir.Sync(); err != nil {
		err = w.store.wrap("writing the directory of "+w.key+" to disk", err)
		return errors.Join(err, root.Remove(w.key)) // It might not survive a power cut.
	}
	return nil
}

func (w *writer) Abort() error {
	if w.file != nil {
		w.file.Close() // What was written is not needed.
		w.file = nil
	}
	if w.partial == "" {
		return nil
	}
	root, err := w.store.openRoot(context.WithoutCancel(w.ctx))
	if err != nil {
		return err
	}
	defer root.Close()
	if err := root.Remove(w.partial); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return w.store.wrap("removing the partial file of "+w.key, err)
	}
	w.partial = ""
	return w.store.wrap("removing the partial file of "+w.key, w.store.removeEmptyDirs(root, path.Dir(w.key)))
}
