package runc

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/runtime"
)

// A rootfs is the writable layer of a container: the upper directory of its overlay.
type rootfs struct {
	upper string
}

// findRootfs finds the writable layer of the container that a process is in.
func findRootfs(pid int) (rootfs, error) {
	mounts, err := mountsOf(pid)
	if err != nil {
		return rootfs{}, err
	}
	for _, mount := range mounts {
		if mount.Mountpoint != "/" {
			continue
		}
		if mount.FSType != "overlay" {
			return rootfs{}, runtime.ErrorfForEngine(
				"the container's root file system is %s; this engine can save the changes to an overlay only", mount.FSType)
		}
		for option := range strings.SplitSeq(mount.VFSOptions, ",") {
			if upper, ok := strings.CutPrefix(option, "upperdir="); ok {
				return rootfs{upper: upper}, nil
			}
		}
		return rootfs{}, nil // read-only: it has no changes
	}
	return rootfs{}, runtime.Errorf(runtime.ContainerNotRunning, "process %d has no root file system", pid)
}

func mountsOf(pid int) ([]*mountinfo.Info, error) {
	file, err := os.Open(procFile(pid, "mountinfo"))
	if err != nil {
		return nil, fmt.Errorf("opening the mounts of process %d: %w", pid, err)
	}
	defer file.Close()
	mounts, err := mountinfo.GetMountsFromReader(file, nil)
	if err != nil {
		return nil, fmt.Errorf("reading the mounts of process %d: %w", pid, err)
	}
	return mounts, nil
}

// A layer is a copy of a writable layer, made in two passes: [layer.scan] while the
// container runs, and again while it is frozen, when only what has changed is read.
type layer struct {
	rootfs  rootfs
	staged  *os.File // contents of files, one after another
	size    int64
	files   map[string]stagedFile
	entries []layerEntry // of the last scan
	// mapped are files that a process has mapped for writing, by their paths in the container:
	// writing to such a file does not always change its times.
	mapped map[string]bool
}

// A stagedFile is the contents of a file at a moment.
type stagedFile struct {
	offset int64
	state  fileState
	// settled is whether the file had last changed so long before it was copied that another
	// change would have got another time.
	settled bool
}

// timeGranularity is more than the granularity of the times of files: one tick of the kernel.
const timeGranularity = 50 * time.Millisecond

// A fileState changes whenever the contents of a file do.
type fileState struct {
	inode, size  int64
	ctime, mtime unix.Timespec
}

// A layerEntry is one entry of the tar file.
type layerEntry struct {
	header tar.Header
	staged stagedFile // of a regular file
}

// newLayer returns a copy that keeps contents in a file of the file system of a directory.
func newLayer(r rootfs, dir string) (*layer, error) {
	// Without a name: its space is free again when it is closed, whatever happens.
	staged, err := os.OpenFile(dir, unix.O_TMPFILE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("creating a file for the changes to the root file system: %w", err)
	}
	return &layer{rootfs: r, staged: staged, files: map[string]stagedFile{}}, nil
}

// scan brings the copy up to date. Files that vanish meanwhile are left out.
func (l *layer) scan() error {
	l.entries = l.entries[:0]
	if l.rootfs.upper == "" {
		return nil
	}
	links := map[int64]string{}
	err := filepath.WalkDir(l.rootfs.upper, func(name string, _ fs.DirEntry, err error) error {
		if err == nil && name != l.rootfs.upper {
			err = l.add(name, links)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("reading the changes to the root file system: %w", err)
	}
	return nil
}

// add appends the entries of a file.
func (l *layer) add(name string, links map[int64]string) error {
	var stat unix.Stat_t
	if err := unix.Lstat(name, &stat); err != nil {
		return &os.PathError{Op: "lstat", Path: name, Err: err}
	}
	relative := strings.TrimPrefix(name, l.rootfs.upper+"/")
	kind := stat.Mode & unix.S_IFMT
	if kind == unix.S_IFCHR && stat.Rdev == 0 {
		l.whiteout(filepath.Join(filepath.Dir(relative), ".wh."+filepath.Base(relative)))
		return nil
	}
	header, opaque, err := headerOf(name, relative, &stat)
	if err != nil || header == nil {
		return err
	}
	entry := layerEntry{header: *header}
	if kind == unix.S_IFREG {
		if err := l.addContents(&entry, name, &stat, links); err != nil {
			return err
		}
	}
	l.entries = append(l.entries, entry)
	if opaque {
		l.whiteout(relative + "/.wh..wh..opq")
	}
	return nil
}

// addContents stages the contents of a regular file, or links it to an entry with the same.
func (l *layer) addContents(entry *layerEntry, name string, stat *unix.Stat_t, links map[int64]string) error {
	relative := entry.header.Name
	if first, linked := links[int64(stat.Ino)]; linked {
		entry.header.Typeflag, entry.header.Linkname, entry.header.Size = tar.TypeLink, first, 0
		return nil
	}
	if stat.Nlink > 1 {
		links[int64(stat.Ino)] = relative
	}
	staged, err := l.stage(name, relative, stat)
	entry.staged, entry.header.Size = staged, staged.state.size
	return err
}

// whiteout appends the mark of something deleted, as the OCI image specification has it.
func (l *layer) whiteout(name string) {
	l.entries = append(l.entries, layerEntry{header: tar.Header{Name: name, Typeflag: tar.TypeReg}})
}

// stage returns where the contents of a file are, after it has copied them if they have
// changed.
func (l *layer) stage(name, relative string, stat *unix.Stat_t) (stagedFile, error) {
	before := fileState{inode: int64(stat.Ino), size: stat.Size, ctime: stat.Ctim, mtime: stat.Mtim}
	known, ok := l.files[relative]
	if ok && known.settled && known.state == before && !l.mapped["/"+relative] {
		return known, nil
	}
	file, err := os.Open(name)
	if err != nil {
		return stagedFile{}, fmt.Errorf("opening a file of the container: %w", err)
	}
	defer file.Close()
	if _, err := l.staged.Seek(l.size, io.SeekStart); err != nil {
		return stagedFile{}, fmt.Errorf("staging files: %w", err)
	}
	// A file that grows is copied again while it is frozen: its change time differs then.
	copied, err := io.Copy(l.staged, io.LimitReader(file, stat.Size))
	if err != nil {
		return stagedFile{}, fmt.Errorf("copying %s of the container: %w", relative, err)
	}
	staged := stagedFile{offset: l.size, state: before, settled: time.Since(time.Unix(stat.Ctim.Unix())) > timeGranularity}
	if copied < stat.Size {
		staged.state.size = copied // shorter meanwhile: the state matches no file, so it is read again
	}
	l.size += copied
	l.files[relative] = staged
	return staged, nil
}

// headerOf returns the header of a file, nil for one that an archive cannot contain, and
// whether it is a directory that hides what is below it.
func headerOf(name, relative string, stat *unix.Stat_t) (*tar.Header, bool, error) {
	info, err := os.Lstat(name)
	if err != nil {
		return nil, false, fmt.Errorf("reading a file of the container: %w", err)
	}
	if info.Mode()&os.ModeSocket != 0 {
		return nil, false, nil
	}
	link := ""
	if info.Mode()&os.ModeSymlink != 0 {
		if link, err = os.Readlink(name); err != nil {
			return nil, false, fmt.Errorf("reading a link of the container: %w", err)
		}
	}
	header, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return nil, false, fmt.Errorf("describing %s of the container: %w", relative, err)
	}
	header.Name = relative
	if info.IsDir() {
		header.Name += "/"
	}
	header.Uname, header.Gname = "", "" // names of the node, not of the container
	header.Uid, header.Gid = int(stat.Uid), int(stat.Gid)
	header.Format = tar.FormatPAX
	opaque, err := addAttributes(header, name)
	return header, opaque, err
}

// addAttributes puts the extended attributes of a file into its header, and returns
// whether overlayfs treats it as opaque.
func addAttributes(header *tar.Header, name string) (bool, error) {
	names, err := listAttributes(name)
	if err != nil {
		return false, err
	}
	opaque := false
	for _, attribute := range names {
		value, err := readAttribute(name, attribute)
		if err != nil {
			return false, err
		}
		switch {
		case attribute == "trusted.overlay.opaque":
			opaque = value == "y"
		case attribute == "trusted.overlay.redirect", attribute == "trusted.overlay.metacopy":
			return false, runtime.Errorf(runtime.RuntimeUnsupported,
				"the container's root file system uses %s of overlayfs, which this engine cannot save", attribute)
		case strings.HasPrefix(attribute, "trusted.overlay."):
		default:
			if header.PAXRecords == nil {
				header.PAXRecords = map[string]string{}
			}
			header.PAXRecords["SCHILY.xattr."+attribute] = value
		}
	}
	return opaque, nil
}

func listAttributes(name string) ([]string, error) {
	size, err := unix.Llistxattr(name, nil)
	if err != nil || size == 0 {
		return nil, ignoreUnsupported(err)
	}
	buffer := make([]byte, size)
	if size, err = unix.Llistxattr(name, buffer); err != nil {
		return nil, fmt.Errorf("listing the attributes of %s: %w", name, err)
	}
	return strings.FieldsFunc(string(buffer[:size]), func(r rune) bool { return r == 0 }), nil
}

func readAttribute(name, attribute string) (string, error) {
	size, err := unix.Lgetxattr(name, attribute, nil)
	if err != nil {
		return "", fmt.Errorf("reading %s of %s: %w", attribute, name, err)
	}
	buffer := make([]byte, size)
	if size, err = unix.Lgetxattr(name, attribute, buffer); err != nil {
		return "", fmt.Errorf("reading %s of %s: %w", attribute, name, err)
	}
	return string(buffer[:size]), nil
}

func ignoreUnsupported(err error) error {
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	return err
}

// write writes the tar file of the last scan.
func (l *layer) write(name string) error {
	file, err := os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("creating the archive of the root file system: %w", err)
	}
	defer file.Close()
	archive := tar.NewWriter(file)
	for i := range l.entries {
		entry := &l.entries[i]
		if err := archive.WriteHeader(&entry.header); err != nil {
			return fmt.Errorf("archiving %s: %w", entry.header.Name, err)
		}
		contents := io.NewSectionReader(l.staged, entry.staged.offset, entry.header.Size)
		if entry.header.Typeflag != tar.TypeReg {
			continue
		}
		if _, err := io.Copy(archive, contents); err != nil {
			return fmt.Errorf("archiving %s: %w", entry.header.Name, err)
		}
	}
	if err := archive.Close(); err != nil {
		return fmt.Errorf("archiving the root file system: %w", err)
	}
	return nil
}
