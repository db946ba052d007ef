package disk_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/driver/local/disk"
	"github.com/holdfast-io/holdfast/driver/local/disk/disktest"
)

// newImage creates an image of 32 MiB with ext4.
func newImage(t *testing.T) string {
	t.Helper()
	disktest.NeedRoot(t)
	image := filepath.Join(disktest.Dir(t), "image")
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, 32*mib))
	must(t, disk.Format(disk.Ext4, image))
	return image
}

func attach(t *testing.T, image string, persistent bool) *disk.Attachment {
	t.Helper()
	a, err := disk.Attach(image, persistent)
	must(t, err)
	t.Cleanup(func() { _ = a.Close() })
	return a
}

func found(t *testing.T, image string) []disk.Device {
	t.Helper()
	devices, err := disk.Find(image)
	must(t, err)
	return devices
}

func TestAttach(t *testing.T) {
	t.Parallel()
	t.Run("an image has one device however often it is attached", func(t *testing.T) {
		t.Parallel()
		image := newImage(t)
		first, second := attach(t, image, true), attach(t, image, true)
		if first.Path != second.Path || len(found(t, image)) != 1 {
			t.Errorf("attached to %s and %s", first.Path, second.Path)
		}
	})
	t.Run("an autoclear device is freed with its last user", func(t *testing.T) {
		t.Parallel()
		image := newImage(t)
		must(t, attach(t, image, false).Close())
		if got := found(t, image); len(got) != 0 {
			t.Errorf("still attached to %s", got[0].Path)
		}
	})
	t.Run("a persistent device stays until it is detached", func(t *testing.T) {
		t.Parallel()
		image := newImage(t)
		must(t, attach(t, image, true).Close())
		if len(found(t, image)) != 1 {
			t.Error("the device went")
		}
		must(t, disk.Detach(image))
		if len(found(t, image)) != 0 {
			t.Error("the device stayed")
		}
	})
	t.Run("an autoclear device can become persistent", func(t *testing.T) {
		t.Parallel()
		image := newImage(t)
		passing := attach(t, image, false)
		must(t, attach(t, image, true).Close())
		must(t, passing.Close())
		if len(found(t, image)) != 1 {
			t.Error("the device went")
		}
	})
}

func TestFind(t *testing.T) {
	t.Parallel()
	t.Run("a device is found by its file, not by a name", func(t *testing.T) {
		t.Parallel()
		image := newImage(t)
		attach(t, image, true)
		moved := image + "-moved"
		must(t, os.Rename(image, moved))
		must(t, os.WriteFile(image, nil, 0o600))
		if len(found(t, moved)) != 1 || len(found(t, image)) != 0 {
			t.Error("the device was looked up by name")
		}
	})
	t.Run("a device is found by its file when its path does not exist", func(t *testing.T) {
		t.Parallel()
		image := newImage(t)
		dir := filepath.Dir(image)
		view := filepath.Join(filepath.Dir(dir), "view")
		must(t, os.Mkdir(view, 0o755))
		must(t, disk.Bind(dir, view, false))
		attach(t, filepath.Join(view, "image"), true)
		t.Cleanup(func() { must(t, disk.Detach(image)) })
		must(t, unix.Unmount(view, unix.MNT_DETACH))
		if len(found(t, image)) != 1 {
			t.Error("the device was not found")
		}
	})
	t.Run("a device is found after its image was removed", func(t *testing.T) {
		t.Parallel()
		image := newImage(t)
		attach(t, image, true)
		must(t, os.Remove(image))
		if len(found(t, image)) != 1 {
			t.Error("the device was not found")
		}
	})
	t.Run("a device takes its image's new size", func(t *testing.T) {
		t.Parallel()
		image := newImage(t)
		a := attach(t, image, true)
		must(t, os.Truncate(image, 64*mib))
		must(t, a.Resize())
		size, err := a.Size()
		must(t, err)
		if size != 64*mib {
			t.Errorf("size = %d", size)
		}
	})
}

// The kernel keeps a device's read-only flag when its image is detached.
func TestReadOnlyFlagIsClearedOnDetach(t *testing.T) {
	image := newImage(t)
	a := attach(t, image, true)
	must(t, a.SetReadOnly(true))
	must(t, a.Close())
	must(t, disk.Detach(image))
	f, err := os.Open(a.Path)
	must(t, err)
	defer f.Close()
	if value, err := unix.IoctlGetInt(int(f.Fd()), unix.BLKROGET); err != nil || value != 0 {
		t.Errorf("read-only = %d, %v", value, err)
	}
}

func TestWithoutRoot(t *testing.T) {
	image := newImage(t)
	attach(t, image, true)
	must(t, os.Chmod(filepath.Dir(filepath.Dir(image)), 0o755))
	disktest.AsNobody(t, func() {
		if _, err := disk.Attach(image, false); !errors.Is(err, disk.ErrUnprivileged) {
			t.Errorf("attaching: got %v", err)
		}
		if err := disk.Detach(image); !errors.Is(err, disk.ErrUnprivileged) {
			t.Errorf("detaching: got %v", err)
		}
		// Find must report that an image is in use even without root.
		if devices, err := disk.Find(image); err != nil || len(devices) != 1 {
			t.Errorf("finding: got %v, %v", devices, err)
		}
	})
}
