package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// MountPoint is a mount of a device's filesystem, or of its device node.
type MountPoint struct {
	// Path is where it is mounted.
	Path string
	// FSType is the filesystem's type.
	FSType string
	// ReadOnly is true if this mount is read-only.
	ReadOnly bool
	// ErrorReadOnly is true if the filesystem rejects writes although this mount is
	// writable, and ShutDown if it rejects everything. Filesystems do this after an
	// error.
	ErrorReadOnly, ShutDown bool
}

// Mounts returns where the root of the device's filesystem is mounted, oldest first.
// It omits mounts of subdirectories, such as those for subPath.
func (d Device) Mounts() ([]MountPoint, error) {
	major, minor := int(unix.Major(d.rdev)), int(unix.Minor(d.rdev))
	return listMounts(func(m *mountinfo.Info) bool {
		return m.Major == major && m.Minor == minor && m.Root == "/"
	})
}

// Nodes returns where the device node is bind-mounted, which is how raw block volumes
// are published.
func (d Device) Nodes() ([]MountPoint, error) {
	name := filepath.Base(d.Path)
	return listMounts(func(m *mountinfo.Info) bool {
		// Compare the name first: stat on another program's mount could hang.
		if filepath.Base(m.Root) != name {
			return false
		}
		var st unix.Stat_t
		return unix.Stat(m.Mountpoint, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK && st.Rdev == d.rdev
	})
}

func listMounts(match func(*mountinfo.Info) bool) ([]MountPoint, error) {
	mounts, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) { return !match(m), false })
	if err != nil {
		return nil, fmt.Errorf("reading the mount table: %w", err)
	}
	points := make([]MountPoint, 0, len(mounts))
	for _, m := range mounts {
		readOnly := hasOption(m.Options, "ro")
		points = append(points, MountPoint{
			Path:          m.Mountpoint,
			FSType:        m.FSType,
			ReadOnly:      readOnly,
			ErrorReadOnly: !readOnly && (hasOption(m.VFSOptions, "ro") || hasOption(m.VFSOptions, "emergency_ro")),
			ShutDown:      hasOption(m.VFSOptions, "shutdown"),
		})
	}
	return points, nil
}

func hasOption(options, want string) bool {
	return slices.Contains(strings.Split(options, ","), want)
}

// MountedAt reports whether anything is mounted at path.
func MountedAt(path string) (bool, error) {
	resolved := Resolve(path)
	points, err := listMounts(func(m *mountinfo.Info) bool { return m.Mountpoint == resolved })
	return len(points) > 0, err
}

// Resolve returns path as the mount table spells it. It does not access the last
// element, which may be a mount that hangs or fails.
func Resolve(path string) string {
	path = filepath.Clean(path)
	if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		return filepath.Join(dir, filepath.Base(path))
	}
	return path
}

// Bind bind-mounts source, a directory or a device node, at target. A read-only bind
// is read-only from the start: it is created detached and then moved to target, so
// that a crash cannot leave a writable one.
func Bind(source, target string, readOnly bool) error {
	tree, err := unix.OpenTree(unix.AT_FDCWD, source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("binding %s: %w", source, err)
	}
	defer unix.Close(tree)
	if readOnly {
		attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
		if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attr); err != nil {
			return fmt.Errorf("binding %s read-only: %w", source, err)
		}
	}
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("binding %s at %s: %w", source, target, err)
	}
	return nil
}

// Unmount removes all mounts at path. It does nothing if nothing is mounted there.
func Unmount(path string) error {
	for {
		mounted, err := MountedAt(path)
		if err != nil || !mounted {
			return err
		}
		if err := RequireRoot(); err != nil {
			return fmt.Errorf("unmounting %s: %w", path, err)
		}
		if err := unix.Unmount(path, unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("unmounting %s: %w", path, err)
		}
	}
}

// Usage is the usage of a mounted filesystem.
type Usage struct {
	Bytes, BytesFree, BytesAvailable int64
	Inodes, InodesFree               int64
}

// UsageOf returns the usage of the filesystem mounted at path, in bytes and inodes.
func UsageOf(path string) (Usage, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return Usage{}, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	return Usage{
		Bytes:          int64(st.Blocks) * st.Bsize,
		BytesFree:      int64(st.Bfree) * st.Bsize,
		BytesAvailable: int64(st.Bavail) * st.Bsize,
		Inodes:         int64(st.Files),
		InodesFree:     int64(st.Ffree),
	}, nil
}
