package runc

import (
	"archive/tar"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/runtime"
)

// A filePlace is a name in an open directory of a container. Its methods follow no link: the
// container may replace any file of it by one at any moment, and what is read is stored where
// the container's owner can read it.
type filePlace struct {
	dir  int    // descriptor
	name string // in dir
	path string // from the top of the layer, for people; "" for the top
}

func (p filePlace) stat() (unix.Stat_t, error) {
	var stat unix.Stat_t
	if err := unix.Fstatat(p.dir, p.name, &stat, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return stat, fmt.Errorf("reading %s of the container: %w", p.path, err)
	}
	return stat, nil
}

// open opens the file for reading. It does not wait for the other end of a pipe.
func (p filePlace) open(flags int) (*os.File, error) {
	fd, err := unix.Openat(p.dir, p.name, flags|unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening %s of the container: %w", p.path, err)
	}
	return os.NewFile(uintptr(fd), p.path), nil
}

// openSame opens the file if it still is the regular one that was found.
func (p filePlace) openSame(found *unix.Stat_t) (*os.File, error) {
	file, err := p.open(0)
	if err != nil {
		return nil, err
	}
	var now unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &now); err != nil || now.Dev != found.Dev || now.Ino != found.Ino || now.Mode&unix.S_IFMT != unix.S_IFREG {
		file.Close()
		return nil, fmt.Errorf("opening %s of the container, which is another file now: %w", p.path, unix.ENOENT)
	}
	return file, nil
}

// proc is a path of the file for calls that have no form with a descriptor. If they do not
// follow the last link, they follow none of the container's.
func (p filePlace) proc() string {
	if p.dir == unix.AT_FDCWD {
		return p.name
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", p.dir, p.name)
}

func (p filePlace) readLink() (string, error) {
	target := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(p.dir, p.name, target)
	if err != nil {
		return "", fmt.Errorf("reading the link %s of the container: %w", p.path, err)
	}
	return string(target[:n]), nil
}

// kinds are the types of files that an archive can contain.
var kinds = map[uint32]byte{
	unix.S_IFREG: tar.TypeReg, unix.S_IFDIR: tar.TypeDir, unix.S_IFLNK: tar.TypeSymlink, unix.S_IFIFO: tar.TypeFifo,
	unix.S_IFCHR: tar.TypeChar, unix.S_IFBLK: tar.TypeBlock,
}

// headerOf returns the header of a file, nil for one that an archive cannot contain, and
// whether it is a directory of an overlay that hides what is below it.
func headerOf(file filePlace, stat *unix.Stat_t, overlay bool) (*tar.Header, bool, error) {
	kind, ok := kinds[stat.Mode&unix.S_IFMT]
	if !ok {
		return nil, false, nil // a socket
	}
	header := &tar.Header{
		Typeflag: kind, Name: file.path, Mode: int64(stat.Mode & 0o7777), Uid: int(stat.Uid), Gid: int(stat.Gid), Format: tar.FormatPAX,
		ModTime: timeOf(stat.Mtim), AccessTime: timeOf(stat.Atim), ChangeTime: timeOf(stat.Ctim),
	}
	switch kind {
	case tar.TypeDir:
		header.Name += "/"
		if file.path == "" {
			header.Name = "./"
		}
	case tar.TypeSymlink:
		var err error
		if header.Linkname, err = file.readLink(); err != nil {
			return nil, false, err
		}
	case tar.TypeChar, tar.TypeBlock:
		header.Devmajor, header.Devminor = int64(unix.Major(stat.Rdev)), int64(unix.Minor(stat.Rdev))
	}
	opaque, err := addAttributes(header, file, overlay)
	return header, opaque, err
}

func timeOf(t unix.Timespec) time.Time { return time.Unix(t.Unix()) }

// addAttributes puts the extended attributes of a file into its header, and returns
// whether overlayfs treats it as opaque.
func addAttributes(header *tar.Header, file filePlace, overlay bool) (bool, error) {
	names, err := file.attributes()
	if err != nil {
		return false, err
	}
	opaque := false
	for _, attribute := range names {
		value, err := file.attribute(attribute)
		if err != nil {
			return false, err
		}
		switch {
		case !overlay || !strings.HasPrefix(attribute, "trusted.overlay."):
			if header.PAXRecords == nil {
				header.PAXRecords = map[string]string{}
			}
			header.PAXRecords["SCHILY.xattr."+attribute] = value
		case attribute == "trusted.overlay.opaque":
			opaque = value == "y"
		case attribute == "trusted.overlay.redirect", attribute == "trusted.overlay.metacopy":
			return false, runtime.Errorf(runtime.RuntimeUnsupported,
				"the container's root file system uses %s of overlayfs, which this engine cannot save", attribute)
		}
	}
	return opaque, nil
}

// attributes lists the extended attributes.
func (p filePlace) attributes() ([]string, error) {
	size, err := unix.Llistxattr(p.proc(), nil)
	if errors.Is(err, unix.ENOTSUP) || err == nil && size == 0 {
		return nil, nil
	}
	buffer := make([]byte, max(size, 0))
	if err == nil {
		size, err = unix.Llistxattr(p.proc(), buffer)
	}
	if err != nil {
		return nil, fmt.Errorf("listing the attributes of %s of the container: %w", p.path, err)
	}
	return strings.FieldsFunc(string(buffer[:size]), func(r rune) bool { return r == 0 }), nil
}

func (p filePlace) attribute(name string) (string, error) {
	size, err := unix.Lgetxattr(p.proc(), name, nil)
	buffer := make([]byte, max(size, 0))
	if err == nil {
		size, err = unix.Lgetxattr(p.proc(), name, buffer)
	}
	if err != nil {
		return "", fmt.Errorf("reading the attribute %s of %s of the container: %w", name, p.path, err)
	}
	return string(buffer[:size]), nil
}
