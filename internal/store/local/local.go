// Package local keeps checkpoints in a directory: of the node, or of a volume that is
// mounted there.
//
// An object is a file whose path is its key. While it is written it has a hidden name in
// the directory where it is going to be:
//
//	checkpoints/1f0c/main                        an object
//	checkpoints/1f0c/.main.R5JH7AQ2….partial     an upload of it
//
// Keys have no hidden names, so the two cannot be confused. Commit syncs the file, gives
// it its name without replacing another file, and syncs the directory. Files have mode
// 0600 and directories 0700, because a checkpoint has all secrets of its program.
//
// A store holds nothing open between calls, so that its volume can be unmounted. Writers
// and objects hold their file open.
package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/store"
)

const (
	dirMode  = 0o700
	fileMode = 0o600
)

// A Store keeps objects in a directory. It is a [store.Store].
type Store struct {
	dir      string
	inVolume bool
	rename   renameFunc
}

// New returns a store in a directory of the node, an absolute path. It is created with
// mode 0700 when it is needed.
func New(dir string) *Store { return &Store{dir: filepath.Clean(dir), rename: renameNoReplace} }

// NewInVolume returns a store in the directory at which a volume is mounted. If nothing is
// mounted there, at any time, the store returns [store.ErrUnavailable]: the data would be
// written to another filesystem.
func NewInVolume(dir string) *Store {
	s := New(dir)
	s.inVolume = true
	return s
}

// Check writes, shows and deletes an object.
func (s *Store) Check(ctx context.Context) error {
	root, err := s.openRoot(ctx)
	if err != nil {
		return err
	}
	defer root.Close()
	f, name, err := s.createPartial(ctx, root, "check")
	if err != nil {
		return err
	}
	w := &writer{ctx: ctx, store: s, key: "check", file: f, partial: name}
	_, err = w.Write([]byte("check"))
	if err == nil {
		err = w.sync()
	}
	return errors.Join(err, w.Abort())
}

// openRoot opens the store's directory, and creates it if that is allowed. No path that is
// opened below it leads out of it, whatever links are there.
func (s *Store) openRoot(ctx context.Context) (*os.Root, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !filepath.IsAbs(s.dir) {
		return nil, fmt.Errorf("%w: the directory %q is not an absolute path: write one that starts with a slash", store.ErrInvalid, s.dir)
	}
	if s.inVolume {
		return s.openVolume()
	}
	root, err := os.OpenRoot(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(s.dir, dirMode); err != nil {
			return nil, s.wrap("creating the directory", err)
		}
		root, err = os.OpenRoot(s.dir)
	}
	if stat, statErr := os.Stat(s.dir); err != nil && statErr == nil && !stat.IsDir() {
		err = unix.ENOTDIR // os.OpenRoot has an error of its own for it.
	}
	return root, s.wrap("opening the directory", err)
}

// Open opens an object.
func (s *Store) Open(ctx context.Context, key string) (store.Object, error) {
	if err := store.ValidateKey(key); err != nil {
		return nil, err
	}
	root, err := s.openRoot(ctx)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := openRegular(root, key)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", store.ErrNotFound, s.path(key))
	}
	if err != nil {
		return nil, s.wrap("opening "+key, err)
	}
	return newObject(ctx, s, key, f)
}

// Delete deletes an object and its partial files, and then the directories that are empty.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := store.ValidateKey(key); err != nil {
		return err
	}
	root, err := s.openRoot(ctx)
	if err != nil {
		return err
	}
	defer root.Close()
	names, err := filesOf(root, key)
	if err != nil {
		return s.wrap("deleting "+key, err)
	}
	for _, name := range names {
		if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return s.wrap("deleting "+name, err)
		}
	}
	return s.wrap("deleting "+key, s.removeEmptyDirs(root, path.Dir(key)))
}

// filesOf returns the paths of a key's object and partial files.
func filesOf(root *os.Root, key string) ([]string, error) {
	entries, err := readDir(root, path.Dir(key))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.Name() == path.Base(key) && !e.IsDir() || isPartialOf(e.Name(), path.Base(key)) {
			names = append(names, path.Join(path.Dir(key), e.Name()))
		}
	}
	return names, nil
}

// removeEmptyDirs removes a directory and its parents as far as they are empty, and syncs
// the first one that stays: then what was deleted stays deleted.
func (s *Store) removeEmptyDirs(root *os.Root, dir string) error {
	for ; dir != "."; dir = path.Dir(dir) {
		if err := root.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			break // It has other objects.
		}
	}
	err := syncDir(root, dir)
	if errors.Is(err, fs.ErrNotExist) { // Another process has removed it and synced its parent.
		return nil
	}
	return err
}

// List walks through the directory.
func (s *Store) List(ctx context.Context, prefix string, each func(store.Info) error) error {
	if err := store.ValidatePrefix(prefix); err != nil {
		return err
	}
	root, err := s.openRoot(ctx)
	if err != nil {
		return err
	}
	defer root.Close()
	return s.list(ctx, root, path.Dir(prefix+"x"), func(i store.Info) error {
		if !strings.HasPrefix(i.Key, prefix) {
			return nil
		}
		return each(i)
	})
}

// list calls each for all files of a directory that are objects or partial files, and for
// those of its directories. It ignores all others, and files that go while it runs.
func (s *Store) list(ctx context.Context, root *os.Root, dir string, each func(store.Info) error) error {
	entries, err := readDir(root, dir)
	if err != nil {
		return s.wrap("listing "+dir, err)
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		name := path.Join(dir, e.Name())
		if e.IsDir() {
			if err := s.list(ctx, root, name, each); err != nil {
				return err
			}
			continue
		}
		info, ok := infoOf(name, e)
		if !ok {
			continue
		}
		if err := each(info); err != nil {
			return err
		}
	}
	return nil
}

// infoOf describes a file, if it is an object or a partial file.
func infoOf(name string, e fs.DirEntry) (store.Info, bool) {
	key, incomplete := keyOf(name)
	if !e.Type().IsRegular() || store.ValidateKey(key) != nil {
		return store.Info{}, false
	}
	stat, err := e.Info()
	if err != nil {
		return store.Info{}, false // It was deleted or renamed meanwhile.
	}
	return store.Info{Key: key, Size: stat.Size(), Modified: stat.ModTime(), Incomplete: incomplete}, true
}

// readDir returns the entries of a directory. What does not exist, or is an object or a
// link, has none.
func readDir(root *os.Root, dir string) ([]fs.DirEntry, error) {
	f, err := root.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.ReadDir(-1)
}

func (s *Store) path(name string) string { return filepath.Join(s.dir, name) }
