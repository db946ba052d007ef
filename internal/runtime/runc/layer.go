package runc

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// A layer is a copy of a directory, made in two passes: [layer.scan] while the container
// runs, and again while it is frozen, when only what has changed is read.
type layer struct {
	dir string // "" for one without files
	// overlay is whether dir is the upper directory of an overlay. Then the copy is an archive of
	// changes, as the OCI image specification has it.
	overlay bool
	// timeless is whether the times of files do not say that they have changed. Then all are
	// read while the container is frozen.
	timeless bool
	limit    int64 // of the size of all files; 0 for none

	frozen bool
	// mapped are files that a process has mapped for writing: writing to such a file does not
	// always change its times.
	mapped mappedFiles

	staged  *os.File // contents of files, one after another
	size    int64
	files   map[string]stagedFile
	entries []layerEntry // of the last scan
	// total is the size of the files of the last scan, and links are the names of those with
	// several, by their inodes.
	total int64
	links map[uint64]string
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
	inode        uint64
	size         int64
	ctime, mtime unix.Timespec
}

// A layerEntry is one entry of the tar file.
type layerEntry struct {
	header tar.Header
	staged stagedFile // of a regular file
}

// newLayer returns a copy of the changes to a root file system. It keeps contents in a file of
// the file system of a directory.
func newLayer(r rootfs, into string) (*layer, error) {
	l := &layer{dir: r.upper, overlay: true}
	return l, l.open(into)
}

func (l *layer) open(into string) error {
	// Without a name: its space is free again when it is closed, whatever happens.
	staged, err := os.OpenFile(into, unix.O_TMPFILE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("creating a file for the files of the container: %w", err)
	}
	l.staged, l.files = staged, map[string]stagedFile{}
	return nil
}

// scan brings the copy up to date. Files that vanish meanwhile are left out.
func (l *layer) scan() error {
	l.entries, l.total, l.links = l.entries[:0], 0, map[uint64]string{}
	if l.dir == "" {
		return nil
	}
	if err := l.scanRoot(); err != nil {
		return fmt.Errorf("reading the files of the container in %s: %w", l.dir, err)
	}
	return nil
}

func (l *layer) scanRoot() error {
	top := filePlace{dir: unix.AT_FDCWD, name: l.dir}
	stat, err := top.stat()
	if err != nil {
		return err
	}
	if !l.overlay {
		if err := l.add(top, &stat); err != nil {
			return err
		}
	}
	return l.scanDir(top, stat.Dev)
}

// scanDir adds the files of a directory. Other file systems that are mounted there are left
// out.
func (l *layer) scanDir(place filePlace, device uint64) error {
	dir, err := place.open(unix.O_DIRECTORY)
	if err != nil {
		return ignoreVanished(err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("listing %s of the container: %w", place.path, err)
	}
	slices.Sort(names)
	for _, name := range names {
		file := filePlace{dir: int(dir.Fd()), name: name, path: filepath.Join(place.path, name)}
		stat, err := file.stat()
		if err == nil {
			err = l.add(file, &stat)
		}
		if err == nil && stat.Mode&unix.S_IFMT == unix.S_IFDIR && stat.Dev == device {
			err = l.scanDir(file, device)
		}
		if err := ignoreVanished(err); err != nil {
			return err
		}
	}
	return nil
}

// ignoreVanished ignores that a file is gone, or is another one now.
func ignoreVanished(err error) error {
	for _, vanished := range []error{unix.ENOENT, unix.ENOTDIR, unix.ELOOP} {
		if errors.Is(err, vanished) {
			return nil
		}
	}
	return err
}

// add appends the entries of a file.
func (l *layer) add(file filePlace, stat *unix.Stat_t) error {
	kind := stat.Mode & unix.S_IFMT
	if l.overlay && kind == unix.S_IFCHR && stat.Rdev == 0 {
		l.whiteout(filepath.Join(filepath.Dir(file.path), ".wh."+file.name))
		return nil
	}
	header, opaque, err := headerOf(file, stat, l.overlay)
	if err != nil || header == nil {
		return err
	}
	entry := layerEntry{header: *header}
	if kind == unix.S_IFREG {
		if err := l.addContents(&entry, file, stat); err != nil {
			return err
		}
	}
	l.entries = append(l.entries, entry)
	if opaque {
		l.whiteout(file.path + "/.wh..wh..opq")
	}
	return nil
}

// addContents stages the contents of a regular file, or links it to an entry with the same.
func (l *layer) addContents(entry *layerEntry, file filePlace, stat *unix.Stat_t) error {
	if first, linked := l.links[stat.Ino]; linked {
		entry.header.Typeflag, entry.header.Linkname, entry.header.Size = tar.TypeLink, first, 0
		return nil
	}
	if l.total += stat.Size; l.limit > 0 && l.total > l.limit {
		return errTooLarge
	}
	staged, err := l.stage(file, stat)
	if err == nil && stat.Nlink > 1 {
		l.links[stat.Ino] = file.path
	}
	entry.staged, entry.header.Size = staged, staged.state.size
	return err
}

// whiteout appends the mark of something deleted, as the OCI image specification has it.
func (l *layer) whiteout(name string) {
	l.entries = append(l.entries, layerEntry{header: tar.Header{Name: name, Typeflag: tar.TypeReg}})
}

// stage returns where the contents of a file are, after it has copied them if they have
// changed.
func (l *layer) stage(place filePlace, stat *unix.Stat_t) (stagedFile, error) {
	before := fileState{inode: stat.Ino, size: stat.Size, ctime: stat.Ctim, mtime: stat.Mtim}
	if l.timeless && !l.frozen {
		return stagedFile{}, nil // It is copied when it cannot change any more.
	}
	if known, ok := l.files[place.path]; ok && known.settled && known.state == before && !l.mayHaveChanged(place, stat) {
		return known, nil
	}
	return l.copy(place, stat, before)
}

// mayHaveChanged reports whether a file may have changed although its times are the same.
func (l *layer) mayHaveChanged(place filePlace, stat *unix.Stat_t) bool {
	return l.timeless || l.mapped.has("/"+place.path, stat.Ino)
}

func (l *layer) copy(place filePlace, stat *unix.Stat_t, before fileState) (stagedFile, error) {
	file, err := place.openSame(stat)
	if err != nil {
		return stagedFile{}, err
	}
	defer file.Close()
	if _, err := l.staged.Seek(l.size, io.SeekStart); err != nil {
		return stagedFile{}, fmt.Errorf("staging files: %w", err)
	}
	// A file that grows is copied again while it is frozen: its change time differs then.
	copied, err := io.Copy(l.staged, io.LimitReader(file, stat.Size))
	if err != nil {
		return stagedFile{}, fmt.Errorf("copying %s of the container: %w", place.path, err)
	}
	staged := stagedFile{offset: l.size, state: before, settled: time.Since(time.Unix(stat.Ctim.Unix())) > timeGranularity}
	if copied < stat.Size {
		staged.state.size = copied // shorter meanwhile: the state matches no file, so it is read again
	}
	l.size += copied
	l.files[place.path] = staged
	return staged, nil
}

// write writes the tar file of the last scan.
func (l *layer) write(name string) error {
	file, err := os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("creating an archive: %w", err)
	}
	defer file.Close()
	archive := tar.NewWriter(file)
	for i := range l.entries {
		entry := &l.entries[i]
		if err := archive.WriteHeader(&entry.header); err != nil {
			return fmt.Errorf("archiving %s: %w", entry.header.Name, err)
		}
		if entry.header.Typeflag != tar.TypeReg {
			continue
		}
		contents := io.NewSectionReader(l.staged, entry.staged.offset, entry.header.Size)
		if _, err := io.Copy(archive, contents); err != nil {
			return fmt.Errorf("archiving %s: %w", entry.header.Name, err)
		}
	}
	if err := archive.Close(); err != nil {
		return fmt.Errorf("archiving the files of the container: %w", err)
	}
	return nil
}
