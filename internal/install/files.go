package install

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// writeFile gives a file of the node a content, by a rename. Links to it stay. A file that
// exists keeps its owner and mode; one that has the content already is left alone.
//
// The new file is prepared in the directory temp, on the same file system: CRI-O reads
// whatever is in its directory of drop-in files.
func (n *node) writeFile(path string, content []byte, mode fs.FileMode, temp string) (changed bool, err error) {
	path, err = n.resolve(path)
	if err != nil {
		return false, err
	}
	to := n.real(path)
	if temp, err = n.resolve(temp); err != nil {
		return false, err
	}
	old, err := os.ReadFile(to)
	if err == nil && bytes.Equal(old, content) && hasMode(to, mode) {
		return false, nil
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return false, fmt.Errorf("creating the directory of %s: %w", path, err)
	}
	// A run that was killed may have left it. Only one runs at a time.
	part := filepath.Join(n.real(temp), "."+filepath.Base(to)+".holdfast")
	if err := writePart(part, to, content, mode); err != nil {
		return false, errors.Join(fmt.Errorf("writing %s: %w", path, err), removeFile(part))
	}
	if err := os.Rename(part, to); err != nil {
		return false, errors.Join(fmt.Errorf("putting %s in place: %w", path, err), removeFile(part))
	}
	n.changed()
	return true, syncDir(filepath.Dir(to))
}

// hasMode reports whether a program is executable. Other files keep the mode that they have.
func hasMode(file string, mode fs.FileMode) bool {
	return mode&0o111 == 0 || isProgram(file)
}

func writePart(part, to string, content []byte, mode fs.FileMode) error {
	uid, gid := 0, 0
	if info, err := os.Stat(to); err == nil {
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			uid, gid = int(stat.Uid), int(stat.Gid)
		}
		mode |= info.Mode().Perm() &^ 0o022
		if mode&0o111 == 0 {
			mode = info.Mode().Perm()
		}
	}
	if err := removeFile(part); err != nil {
		return err
	}
	file, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, bytes.NewReader(content))
	if err == nil {
		err = errors.Join(file.Chmod(mode), file.Chown(uid, gid), file.Sync())
	}
	return errors.Join(err, file.Close())
}

// remove removes a file of the node, if it is there.
func (n *node) remove(path string) (changed bool, err error) {
	path, err = n.resolve(path)
	if err != nil {
		return false, err
	}
	if _, err := os.Lstat(n.real(path)); err != nil {
		return false, ignoreMissing(err)
	}
	if err := os.Remove(n.real(path)); err != nil {
		return false, fmt.Errorf("removing %s: %w", path, err)
	}
	n.changed()
	return true, syncDir(filepath.Dir(n.real(path)))
}

func removeFile(file string) error { return ignoreMissing(os.Remove(file)) }

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func syncDir(dir string) error {
	file, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}
