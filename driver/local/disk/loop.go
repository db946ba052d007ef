package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	loopControl = "/dev/loop-control"
	// sectorSize is fixed: the kernel may otherwise use the block size of the disk
	// below, and a filesystem created with 512 byte sectors would not mount.
	sectorSize = 512
	// attachTries limits the retries in the race with other users of loop devices: the
	// number that the kernel reports as free may be used before it is bound.
	attachTries = 64
)

// Device is a loop device that is bound to an image.
type Device struct {
	// Path is the device's node, for example /dev/loop7.
	Path string
	// AutoClear is true if the kernel frees the device at its last close
	// (LO_FLAGS_AUTOCLEAR). Devices of mounted filesystems are bound this way.
	AutoClear bool

	rdev uint64
}

// Attachment is an open device. It is not freed before Close.
type Attachment struct {
	Device
	file *os.File
}

// Close closes the device. A device bound without persistent is freed unless something
// else, such as a mount, uses it.
func (a *Attachment) Close() error {
	return a.file.Close()
}

// Attach binds image to a loop device, or opens the device that it is already bound
// to: two devices over one image would corrupt it. The device has the image's current
// size. With persistent the device stays bound when nothing has it open; without it,
// the kernel frees it with its last user, so that a crash leaves nothing behind.
func Attach(image string, persistent bool) (*Attachment, error) {
	if err := RequireRoot(); err != nil {
		return nil, fmt.Errorf("attaching %s: %w", image, err)
	}
	a, err := attachExisting(image, persistent)
	if err == nil && a == nil {
		a, err = attachNew(image, persistent)
	}
	if err != nil {
		return nil, fmt.Errorf("attaching %s: %w", image, err)
	}
	return a, nil
}

// attachExisting opens and updates the device that image is bound to. It returns nil
// if there is none.
func attachExisting(image string, persistent bool) (*Attachment, error) {
	devices, err := Find(image)
	if err != nil || len(devices) == 0 {
		return nil, err
	}
	device := devices[0]
	f, err := os.OpenFile(device.Path, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	err = updateExisting(int(f.Fd()), persistent)
	if errors.Is(err, unix.ENXIO) {
		return nil, f.Close() // its last user closed it since Find
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("adjusting %s: %w", device.Path, err), f.Close())
	}
	device.AutoClear = device.AutoClear && !persistent
	return &Attachment{Device: device, file: f}, nil
}

// updateExisting sets a bound device to its image's size and makes it persistent if
// requested.
func updateExisting(fd int, persistent bool) error {
	info, err := unix.IoctlLoopGetStatus64(fd)
	if err != nil {
		return err
	}
	if persistent && info.Flags&unix.LO_FLAGS_AUTOCLEAR != 0 {
		info.Flags &^= unix.LO_FLAGS_AUTOCLEAR
		if err := unix.IoctlLoopSetStatus64(fd, info); err != nil {
			return err
		}
	}
	return unix.IoctlSetInt(fd, unix.LOOP_SET_CAPACITY, 0)
}

// attachNew binds a free device to image.
func attachNew(image string, persistent bool) (*Attachment, error) {
	backing, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer backing.Close() // the kernel holds its own reference
	control, err := os.OpenFile(loopControl, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("%w (is the loop module loaded and the machine's /dev mounted?)", err)
	}
	defer control.Close()
	for range attachTries {
		number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("asking for a free loop device: %w", err)
		}
		a, err := configure(fmt.Sprintf("/dev/loop%d", number), backing, persistent)
		if !errors.Is(err, unix.EBUSY) {
			return a, err
		}
	}
	return nil, fmt.Errorf("no loop device stayed free in %d tries", attachTries)
}

// configure binds backing to the device at path in one step.
func configure(path string, backing *os.File, persistent bool) (*Attachment, error) {
	config := unix.LoopConfig{Fd: uint32(backing.Fd()), Size: sectorSize}
	// Direct I/O avoids caching volume data twice; the kernel falls back to buffered
	// I/O if the filesystem below does not support it.
	config.Info.Flags = unix.LO_FLAGS_DIRECT_IO
	if !persistent {
		config.Info.Flags |= unix.LO_FLAGS_AUTOCLEAR
	}
	copy(config.Info.File_name[:len(config.Info.File_name)-1], filepath.Base(backing.Name()))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("%w (the driver needs the machine's /dev)", err)
	}
	if err := unix.IoctlLoopConfigure(int(f.Fd()), &config); err != nil {
		return nil, errors.Join(fmt.Errorf("binding %s: %w", path, err), f.Close())
	}
	// Clear the read-only flag that an earlier user of the device may have left.
	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.BLKROSET, 0); err != nil {
		return nil, errors.Join(fmt.Errorf("making %s writable: %w", path, err), f.Close())
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, errors.Join(fmt.Errorf("reading the number of %s: %w", path, err), f.Close())
	}
	return &Attachment{Device: Device{Path: path, AutoClear: !persistent, rdev: st.Rdev}, file: f}, nil
}

// Find returns the loop devices that are bound to image: none or one, unless another
// program bound it too. It works without root, and for an image that was removed while
// bound. It avoids opening devices: others cannot free a device while it is open,
// however briefly.
func Find(image string) ([]Device, error) {
	want := imageFile{path: Resolve(image)}
	err := unix.Stat(image, &want.stat)
	if want.deleted = errors.Is(err, fs.ErrNotExist); err != nil && !want.deleted {
		return nil, fmt.Errorf("looking for the loop device of %s: %w", image, err)
	}
	bound, err := filepath.Glob("/sys/block/loop*/loop")
	if err != nil {
		return nil, err
	}
	var found []Device
	for _, sysfs := range bound {
		device, backing, err := readSysfs(filepath.Dir(sysfs))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENODEV) {
			continue // freed since it was listed
		}
		if err != nil {
			return nil, fmt.Errorf("looking for the loop device of %s: %w", image, err)
		}
		if want.matches(device, backing) {
			found = append(found, device)
		}
	}
	return found, nil
}

// readSysfs reads a bound device's description in sysfs, which is readable without
// root.
func readSysfs(sysfs string) (d Device, backing string, err error) {
	values := map[string]string{"dev": "", "loop/backing_file": "", "loop/autoclear": ""}
	for name := range values {
		line, err := os.ReadFile(filepath.Join(sysfs, name))
		if err != nil {
			return d, "", err
		}
		values[name] = strings.TrimSuffix(string(line), "\n")
	}
	var major, minor uint32
	if _, err := fmt.Sscanf(values["dev"], "%d:%d", &major, &minor); err != nil {
		return d, "", fmt.Errorf("reading %s/dev: %w", sysfs, err)
	}
	d = Device{
		Path:      "/dev/" + filepath.Base(sysfs),
		AutoClear: values["loop/autoclear"] == "1",
		rdev:      unix.Mkdev(major, minor),
	}
	return d, values["loop/backing_file"], nil
}

// imageFile is the file whose device Find searches.
type imageFile struct {
	path    string
	stat    unix.Stat_t
	deleted bool
}

// deletedSuffix is what the kernel appends to the name of a removed file.
const deletedSuffix = " (deleted)"

// matches reports whether the device's image, now known as name, is this file. It
// compares device and inode, because name may belong to another mount namespace. A
// removed file has only its name.
func (t imageFile) matches(d Device, name string) bool {
	if t.deleted {
		return name == t.path+deletedSuffix
	}
	if filepath.Base(name) != filepath.Base(t.path) {
		return false
	}
	var st unix.Stat_t
	if unix.Stat(name, &st) == nil {
		return st.Dev == t.stat.Dev && st.Ino == t.stat.Ino
	}
	// The device was bound by a process that saw the file at another path, such as an
	// earlier container.
	var info *unix.LoopInfo64
	err := d.ioctl(func(fd int) (err error) {
		info, err = unix.IoctlLoopGetStatus64(fd)
		return err
	})
	return err == nil && info.Device == t.stat.Dev && info.Inode == t.stat.Ino
}

// Detach frees every device that image is bound to. A device that is still open is
// freed when it is closed.
func Detach(image string) error {
	devices, err := Find(image)
	if err != nil {
		return err
	}
	for _, d := range devices {
		if err := RequireRoot(); err != nil {
			return fmt.Errorf("detaching %s: %w", d.Path, err)
		}
		// The kernel keeps the read-only flag for the next image of the device.
		if err := d.SetReadOnly(false); err != nil {
			return fmt.Errorf("detaching %s: %w", d.Path, err)
		}
		err := d.ioctl(func(fd int) error { return unix.IoctlSetInt(fd, unix.LOOP_CLR_FD, 0) })
		if err != nil && !errors.Is(err, unix.ENXIO) {
			return fmt.Errorf("detaching %s: %w", d.Path, err)
		}
	}
	return nil
}

// Resize sets the device to its image's size.
func (d Device) Resize() error {
	err := d.ioctl(func(fd int) error { return unix.IoctlSetInt(fd, unix.LOOP_SET_CAPACITY, 0) })
	if err != nil {
		return fmt.Errorf("resizing %s: %w", d.Path, err)
	}
	return nil
}

// Size returns the device's size in bytes.
func (d Device) Size() (int64, error) {
	f, err := os.Open(d.Path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return f.Seek(0, io.SeekEnd)
}

// Flush writes the device's cached data to the image.
func (d Device) Flush() error {
	f, err := os.OpenFile(d.Path, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("flushing %s: %w", d.Path, err)
	}
	return nil
}

// SetReadOnly makes the device reject or accept writes. A read-only bind mount of a
// device node does not do that.
func (d Device) SetReadOnly(readOnly bool) error {
	value := 0
	if readOnly {
		value = 1
	}
	err := d.ioctl(func(fd int) error { return unix.IoctlSetPointerInt(fd, unix.BLKROSET, value) })
	if err != nil {
		return fmt.Errorf("setting %s read-only=%t: %w", d.Path, readOnly, err)
	}
	return nil
}

func (d Device) ioctl(ioctl func(fd int) error) error {
	f, err := os.OpenFile(d.Path, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return ioctl(int(f.Fd()))
}
