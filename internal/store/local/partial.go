package local

import (
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

const partialSuffix = ".partial"

// partialName returns a name for an upload of a key. It is not that of another upload.
func partialName(key string) string {
	return path.Join(path.Dir(key), "."+path.Base(key)+"."+rand.Text()+partialSuffix)
}

// keyOf returns the key to which a file belongs, and whether it is a partial file.
func keyOf(name string) (key string, partial bool) {
	base := path.Base(name)
	if !strings.HasPrefix(base, ".") || !strings.HasSuffix(base, partialSuffix) {
		return name, false
	}
	base = strings.TrimSuffix(base[1:], partialSuffix)
	dot := strings.LastIndexByte(base, '.')
	if dot < 1 {
		return name, false
	}
	return path.Join(path.Dir(name), base[:dot]), true
}

func isPartialOf(name, base string) bool {
	key, partial := keyOf(name)
	return partial && key == base
}

// createPartial creates a file for an upload of a key, and the directories that it needs.
// Delete removes empty directories, so it may take more than one attempt.
func (s *Store) createPartial(ctx context.Context, root *os.Root, key string) (f *os.File, name string, err error) {
	name = partialName(key)
	for {
		f, err = root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, fileMode)
		if !errors.Is(err, fs.ErrNotExist) {
			return f, name, s.wrap("creating a file for "+key, err)
		}
		if err := ctx.Err(); err != nil {
			return nil, "", err
		}
		if err := makeDirs(root, path.Dir(key)); err != nil {
			return nil, "", s.wrap("creating the directory of "+key, err)
		}
	}
}

// makeDirs creates a directory and its parents, and makes them survive a power cut. If a
// parent goes meanwhile it returns nil: the caller sees that and repeats the call.
func makeDirs(root *os.Root, dir string) error {
	parent := "."
	for element := range strings.SplitSeq(dir, "/") {
		next := path.Join(parent, element)
		err := root.Mkdir(next, dirMode)
		if err == nil {
			err = syncDir(root, parent)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		parent = next
	}
	return nil
}

func syncDir(root *os.Root, dir string) error {
	f, err := root.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// A renameFunc renames a file of a directory, and does not replace another one: then it
// returns [fs.ErrExist].
type renameFunc func(dir *os.File, from, to string) error

// renameNoReplace uses rename, because a file then has one name at each time. Filesystems
// that cannot rename without replacing, such as NFS, can link.
func renameNoReplace(dir *os.File, from, to string) error {
	fd := int(dir.Fd())
	err := unix.Renameat2(fd, from, fd, to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.ENOTSUP) {
		return linkNoReplace(dir, from, to)
	}
	return err
}

func linkNoReplace(dir *os.File, from, to string) error {
	fd := int(dir.Fd())
	if err := unix.Linkat(fd, from, fd, to, 0); err != nil {
		return err
	}
	return unix.Unlinkat(fd, from, 0)
}
