package wrapper

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// rootfsDiff has the changes to the root file system, as a tar file with the whiteouts of
	// the OCI image specification, also compressed by gzip (as containerd does).
	rootfsDiff = "rootfs-diff.tar"
	// deletedFiles has the deleted files as a list in JSON (as CRI-O does).
	deletedFiles = "deleted.files"

	whiteout       = ".wh."
	whiteoutOpaque = ".wh..wh..opq"
	// whiteoutMeta begins names of AUFS that mean nothing here.
	whiteoutMeta = ".wh..wh."
	xattrPrefix  = "SCHILY.xattr."

	// maxEntries is how many files a container may have changed.
	maxEntries = 10_000_000
	// maxDeleted is how long the list of deleted files may be, in bytes.
	maxDeleted = 64 << 20
)

// applyRootfs applies the changes of the checkpoint to the container's root file system.
func (w *wrapper) applyRootfs(ctx context.Context, s *spec, data string) error {
	path := s.Root.Path
	if path == "" {
		return errors.New("the OCI specification names no root file system")
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(w.call.bundleDir(), path)
	}
	t, err := openTree(path)
	if err != nil {
		return err
	}
	defer t.root.Close()
	if err := t.removeDeleted(filepath.Join(data, deletedFiles)); err != nil {
		return fmt.Errorf("removing the files that were deleted in the checkpoint: %w", err)
	}
	file, err := os.Open(filepath.Join(data, rootfsDiff))
	if errors.Is(err, os.ErrNotExist) {
		return nil // The container had changed nothing.
	}
	if err != nil {
		return fmt.Errorf("opening the changes to the root file system: %w", err)
	}
	defer file.Close()
	if _, err := t.apply(ctx, file); err != nil {
		return fmt.Errorf("applying the changes to the root file system: %w", err)
	}
	return nil
}

func (t *tree) removeDeleted(name string) error {
	file, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	var names []string
	if err := json.NewDecoder(io.LimitReader(file, maxDeleted)).Decode(&names); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for _, name := range names {
		parts, err := splitName(strings.TrimLeft(name, "/"))
		if err == nil {
			err = t.remove(parts)
		}
		if err != nil {
			return fmt.Errorf("removing %q: %w", name, err)
		}
	}
	return nil
}

// A layer is an archive of changes while it is applied.
type layer struct {
	*tree
	archive *tar.Reader
	// made are the names that the archive has had, and their directories. An opaque directory
	// hides others only.
	made map[string]bool
	// dirs are the directories, whose times are set at the end: files in them change them.
	dirs []*tar.Header
	// room is how many bytes the file system can still take.
	room uint64
}

// unzip decompresses what is compressed by gzip.
func unzip(from io.Reader) (io.Reader, error) {
	buffered := bufio.NewReaderSize(from, 1<<20)
	if magic, _ := buffered.Peek(2); string(magic) == "\x1f\x8b" {
		return gzip.NewReader(buffered)
	}
	return buffered, nil
}

// apply applies an archive, and returns the names that it has.
func (t *tree) apply(ctx context.Context, from io.Reader) (map[string]bool, error) {
	plain, err := unzip(from)
	if err != nil {
		return nil, err
	}
	var stat unix.Statfs_t
	if err := unix.Fstatfs(int(t.root.Fd()), &stat); err != nil {
		return nil, fmt.Errorf("reading the free space: %w", err)
	}
	l := &layer{tree: t, archive: tar.NewReader(plain), made: map[string]bool{}, room: stat.Bavail * uint64(stat.Bsize)}
	for range maxEntries {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("%w: %w", errInterrupted, context.Cause(ctx))
		}
		header, err := l.archive.Next()
		if errors.Is(err, io.EOF) {
			return l.made, l.setTimes()
		}
		if err != nil {
			return nil, err
		}
		if err := l.entry(header); err != nil {
			return nil, fmt.Errorf("%q: %w", header.Name, err)
		}
	}
	return nil, fmt.Errorf("there are more than %d", maxEntries)
}

func (l *layer) entry(header *tar.Header) error {
	if header.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	parts, err := splitName(header.Name)
	if err != nil {
		return err
	}
	if len(parts) == 0 {
		if header.Typeflag != tar.TypeDir {
			return errors.New("the root of the file system is a directory")
		}
		l.dirs = append(l.dirs, header)
		return nil
	}
	if l.volume {
		return l.make(parts, header)
	}
	if isWhiteout, err := l.whiteout(parts, header); isWhiteout || err != nil {
		return err
	}
	return l.make(parts, header)
}

// make makes the file of an entry in the place of whatever has its name.
func (l *layer) make(parts []string, header *tar.Header) error {
	for i := range parts {
		l.made[strings.Join(parts[:i+1], "/")] = true
	}
	p, err := l.place(parts, true)
	if err != nil {
		return err
	}
	defer p.close()
	switch header.Typeflag {
	case tar.TypeDir:
		return l.makeDir(p, header)
	case tar.TypeLink:
		return l.link(p, header)
	default:
		return l.makeFile(p, header)
	}
}

// whiteout removes what a whiteout hides, and reports whether the name is one.
func (l *layer) whiteout(parts []string, header *tar.Header) (bool, error) {
	if header.Typeflag == tar.TypeChar && header.Devmajor == 0 && header.Devminor == 0 {
		return true, l.remove(parts) // This is how overlayfs marks a deleted file.
	}
	last := len(parts) - 1
	name, is := strings.CutPrefix(parts[last], whiteout)
	switch {
	case !is:
		return false, nil
	case parts[last] == whiteoutOpaque:
		return true, l.removeExcept(parts[:last], l.made)
	case strings.HasPrefix(parts[last], whiteoutMeta):
		return true, nil
	case name == "" || name == "." || name == "..":
		return true, errors.New("it deletes what is not a file of its directory")
	}
	return true, l.remove(append(parts[:last:last], name))
}

func (l *layer) makeDir(p place, header *tar.Header) error {
	if !p.isDir() {
		if err := p.remove(); err != nil {
			return err
		}
		if err := unix.Mkdirat(p.dir, p.name, 0o700); err != nil {
			return err
		}
	}
	l.dirs = append(l.dirs, header)
	return l.setMetadata(p, header)
}

func (l *layer) link(p place, header *tar.Header) error {
	parts, err := splitName(header.Linkname)
	if err != nil {
		return fmt.Errorf("its target %w", err)
	}
	target, err := l.place(parts, false)
	if err != nil {
		return fmt.Errorf("linking to %q: %w", header.Linkname, err)
	}
	defer target.close()
	if err := p.remove(); err != nil {
		return err
	}
	return unix.Linkat(target.dir, target.name, p.dir, p.name, 0)
}

func (l *layer) makeFile(p place, header *tar.Header) error {
	err := p.remove()
	if err == nil {
		err = l.makeOfType(p, header)
	}
	if err == nil {
		err = l.setMetadata(p, header)
	}
	if err != nil {
		return err
	}
	return p.setTimes(header)
}

func (l *layer) makeOfType(p place, header *tar.Header) error {
	// This is how overlayfs marks a deleted file; it is no device.
	isMark := header.Typeflag == tar.TypeChar && header.Devmajor == 0 && header.Devminor == 0
	switch {
	case header.Typeflag == tar.TypeReg:
		return l.write(p, header)
	case header.Typeflag == tar.TypeSymlink:
		return unix.Symlinkat(header.Linkname, p.dir, p.name)
	case header.Typeflag == tar.TypeFifo:
		return unix.Mknodat(p.dir, p.name, unix.S_IFIFO|0o600, 0)
	case isMark:
		return unix.Mknodat(p.dir, p.name, unix.S_IFCHR|0o600, 0)
	default:
		return fmt.Errorf("files of type %q, such as devices, are not restored", header.Typeflag)
	}
}

func (l *layer) write(p place, header *tar.Header) error {
	if size := uint64(header.Size); size > l.room {
		return fmt.Errorf("it has %d bytes, and the file system of the node has %d left", size, l.room)
	}
	l.room -= uint64(header.Size)
	fd, err := unix.Openat(p.dir, p.name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(fd), p.name)
	_, err = io.Copy(file, l.archive)
	return errors.Join(err, file.Close())
}

// setMetadata sets owner, mode and attributes, in this order: a new owner removes the bits and
// attributes that give rights.
func (t *tree) setMetadata(p place, header *tar.Header) error {
	if err := unix.Fchownat(p.dir, p.name, header.Uid, header.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("setting the owner: %w", err)
	}
	if header.Typeflag != tar.TypeSymlink {
		// The name is no link: it was made, or seen to be a directory, just now.
		if err := unix.Fchmodat(p.dir, p.name, uint32(header.Mode)&0o7777, 0); err != nil {
			return fmt.Errorf("setting the mode: %w", err)
		}
	}
	for key, value := range header.PAXRecords {
		name, is := strings.CutPrefix(key, xattrPrefix)
		if !is || !t.isRestored(name) {
			continue
		}
		err := unix.Lsetxattr(p.self(), name, []byte(value), 0)
		if err != nil && !errors.Is(err, unix.ENOTSUP) {
			return fmt.Errorf("setting the attribute %s: %w", name, err)
		}
	}
	return nil
}

// isRestored reports whether an extended attribute is set. Those of overlayfs would change what
// a layer means, and the label of SELinux is another pod's.
func (t *tree) isRestored(name string) bool {
	isOverlay := strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.")
	return name != "security.selinux" && (t.volume || !isOverlay)
}

func (p place) setTimes(header *tar.Header) error {
	accessed := header.AccessTime
	if accessed.IsZero() {
		accessed = header.ModTime
	}
	times := []unix.Timespec{timespec(accessed), timespec(header.ModTime)}
	if err := unix.UtimesNanoAt(p.dir, p.name, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("setting the times: %w", err)
	}
	return nil
}

func timespec(t time.Time) unix.Timespec { return unix.NsecToTimespec(t.UnixNano()) }

// setTimes sets the times of the directories, the deepest ones first.
func (l *layer) setTimes() error {
	for i := len(l.dirs) - 1; i >= 0; i-- {
		header := l.dirs[i]
		parts, err := splitName(header.Name)
		if err != nil {
			return err
		}
		dir, err := l.dir(parts, false)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			continue // Another entry has replaced it.
		}
		if err != nil {
			return err
		}
		p := place{dir: dir, name: "."}
		if len(parts) == 0 {
			err = l.setMetadata(p, header)
		}
		err = errors.Join(err, p.setTimes(header))
		p.close()
		if err != nil {
			return fmt.Errorf("%q: %w", header.Name, err)
		}
	}
	return nil
}
