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

// MountPoint is one mount of a device's filesystem, or of its node.
type MountPoint struct {
	// Path is where it is mounted.
	Path string
	// FSType is the filesystem's type.
	FSType string
	// ReadOnly is true when this mount refuses writes.
	ReadOnly bool
	// ErrorReadOnly is true when the filesystem refuses writes although this mount
	// would allow them, and ShutDown when it refuses everything: what
	// filesystems do after an error.
	ErrorReadOnly, ShutDown bool
}

// Mounts returns where the device's filesystem is mounted as a whole, oldest
// first. Mounts of folders inside it, as are made for subPath, are not counted.
func (d Device) Mounts() ([]MountPoint, error) {
	major, minor := int(unix.Major(d.rdev)), int(unix.Minor(d.rdev))
	return listMounts(func(m *mountinfo.Info) bool {
		return m.Major == major && m.Minor == minor && m.Root == "/"
	})
}

// Nodes returns where the device's node is mounted, which is how raw block
// volumes are handed out.
func (d Device) Nodes() ([]MountPoint, error) {
	name := filepath.Base(d.Path)
	return listMounts(func(m *mountinfo.Info) bool {
		// The name goes first: stat on a stranger's mount could hang.
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

// MountedAt tells whether anything is mounted at path.
func MountedAt(path string) (bool, error) {
	resolved := Resolve(path)
	points, err := listMounts(func(m *mountinfo.Info) bool { return m.Mountpoint == resolved })
	return len(points) > 0, err
}

// Resolve returns path as the mount table spells it. The last part is not
// looked at: it may be a mount that hangs or fails.
func Resolve(path string) string {
	path = filepath.Clean(path)
	if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		return filepath.Join(dir, filepath.Base(path))
	}
	return path
}

// Bind shows source, a folder or a device node, at target as well. A read-only
// bind is read-only from its first moment: it is made aside and moved in, so
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

// Unmount takes away whatever is mounted at path, all layers of it. It does
// nothing where nothing is mounted.
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

// Usage is what a mounted filesystem has.
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
