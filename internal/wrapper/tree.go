package wrapper

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// A tree is the root file system of a container, or one of its volumes. Its methods never
// leave it: they go down from directory to directory and follow no link, whoever has made the
// links.
type tree struct {
	root *os.File
	// volume is whether archives have the files themselves. Those of a root file system have
	// changes to it, and nothing of what overlayfs keeps there.
	volume bool
}

func openTree(path string) (*tree, error) {
	root, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening the root file system: %w", err)
	}
	return &tree{root: root}, nil
}

// splitName returns the parts of a relative path; none for the root itself.
func splitName(name string) ([]string, error) {
	if strings.HasPrefix(name, "/") {
		return nil, fmt.Errorf("%q is not a relative path", name)
	}
	var parts []string
	for part := range strings.SplitSeq(name, "/") {
		switch {
		case part == "" || part == ".":
		case part == ".." || strings.Contains(part, "\x00"):
			return nil, fmt.Errorf("%q leads out of its directory", name)
		default:
			parts = append(parts, part)
		}
	}
	return parts, nil
}

const openPath = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC

// dir opens a directory, by a descriptor that is only good for going on from it. Missing ones
// are made if that is wanted.
func (t *tree) dir(parts []string, create bool) (int, error) {
	fd, err := unix.Openat(int(t.root.Fd()), ".", openPath, 0)
	if err != nil {
		return -1, err
	}
	for i, part := range parts {
		next, err := unix.Openat(fd, part, openPath, 0)
		if create && errors.Is(err, unix.ENOENT) {
			if err = unix.Mkdirat(fd, part, 0o755); err == nil {
				next, err = unix.Openat(fd, part, openPath, 0)
			}
		}
		unix.Close(fd)
		if err != nil {
			return -1, fmt.Errorf("entering the directory %s: %w", strings.Join(parts[:i+1], "/"), err)
		}
		fd = next
	}
	return fd, nil
}

// A place is a name in a directory of a tree.
type place struct {
	dir  int
	name string
}

func (p place) close() { unix.Close(p.dir) }

// self is a path of the place for calls that have no form with a descriptor. The kernel goes
// from the directory to the name, so links are not followed by calls that do not follow the
// last one.
func (p place) self() string { return fmt.Sprintf("/proc/self/fd/%d/%s", p.dir, p.name) }

// place finds a name. It is an error if the name is that of the root.
func (t *tree) place(parts []string, create bool) (place, error) {
	if len(parts) == 0 {
		return place{}, errors.New("the root of the file system cannot be replaced")
	}
	last := len(parts) - 1
	dir, err := t.dir(parts[:last], create)
	if err != nil {
		return place{}, err
	}
	return place{dir: dir, name: parts[last]}, nil
}

// remove removes whatever has a name, and everything below it. It is no error if there is
// nothing.
func (t *tree) remove(parts []string) error {
	p, err := t.place(parts, false)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	defer p.close()
	return p.remove()
}

func (p place) remove() error {
	err := unix.Unlinkat(p.dir, p.name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("removing %s: %w", p.name, err)
	}
	names, dir, err := p.list()
	if err != nil {
		return err
	}
	defer dir.Close()
	for _, name := range names {
		if err := (place{dir: int(dir.Fd()), name: name}).remove(); err != nil {
			return err
		}
	}
	if err := unix.Unlinkat(p.dir, p.name, unix.AT_REMOVEDIR); err != nil {
		return fmt.Errorf("removing the directory %s: %w", p.name, err)
	}
	return nil
}

// list returns the names in a directory, and the directory.
func (p place) list() ([]string, *os.File, error) {
	fd, err := unix.Openat(p.dir, p.name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("opening the directory %s: %w", p.name, err)
	}
	dir := os.NewFile(uintptr(fd), p.name)
	names, err := dir.Readdirnames(-1)
	if err != nil {
		dir.Close()
		return nil, nil, fmt.Errorf("listing the directory %s: %w", p.name, err)
	}
	return names, dir, nil
}

// removeExcept removes everything below a directory that has none of the names that are kept.
func (t *tree) removeExcept(parts []string, keep map[string]bool) error {
	fd, err := t.dir(parts, false)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return place{dir: fd, name: "."}.removeExcept(strings.Join(parts, "/"), keep)
}

func (p place) removeExcept(path string, keep map[string]bool) error {
	names, dir, err := p.list()
	if err != nil {
		return err
	}
	defer dir.Close()
	for _, name := range names {
		child := place{dir: int(dir.Fd()), name: name}
		childPath := strings.TrimPrefix(path+"/"+name, "/")
		if !keep[childPath] {
			err = child.remove()
		} else if child.isDir() {
			err = child.removeExcept(childPath, keep)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (p place) isDir() bool {
	var stat unix.Stat_t
	err := unix.Fstatat(p.dir, p.name, &stat, unix.AT_SYMLINK_NOFOLLOW)
	return err == nil && stat.Mode&unix.S_IFMT == unix.S_IFDIR
}
