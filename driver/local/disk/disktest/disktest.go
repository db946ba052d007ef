// Package disktest creates filesystems for tests and cleans up their mounts and loop
// devices.
package disktest

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/driver/local/disk"
)

// nobody is a user without privileges.
const nobody = 65534

// NeedRoot fails a test that cannot run without root. It does not skip the test, so
// that a run without root is not mistaken for a complete one.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test makes loop devices and mounts: run it as root")
	}
}

// Dir returns a directory like t.TempDir. At the end of the test it removes all mounts
// and loop devices below it.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { clean(t, dir) })
	return dir
}

// Filesystem returns the mount point of a new filesystem of the given size in bytes.
func Filesystem(t testing.TB, fsType string, size int64) string {
	t.Helper()
	NeedRoot(t)
	dir := Dir(t)
	image, target := filepath.Join(dir, "disk"), filepath.Join(dir, "mnt")
	check(t, os.WriteFile(image, nil, 0o600))
	check(t, os.Truncate(image, size))
	check(t, disk.Format(fsType, image))
	check(t, os.Mkdir(target, 0o755))
	a, err := disk.Attach(image, false)
	check(t, err)
	check(t, disk.Mount(fsType, a.Device, target, nil))
	check(t, a.Close())
	return target
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// clean unmounts everything below dir, newest first, and detaches the devices of
// images there.
func clean(t testing.TB, dir string) {
	below := func(path string) bool { return strings.HasPrefix(path, dir+"/") }
	for {
		mounts, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) { return !below(m.Mountpoint), false })
		if err != nil {
			t.Error(err)
			return
		}
		if len(mounts) == 0 {
			break
		}
		last := mounts[len(mounts)-1].Mountpoint
		thaw(last)
		if err := unix.Unmount(last, unix.MNT_DETACH); err != nil {
			t.Errorf("unmounting %s: %v", last, err)
			return
		}
	}
	backing, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	check(t, err)
	for _, b := range backing {
		name, err := os.ReadFile(b)
		if err != nil || !below(string(name)) {
			continue
		}
		image := strings.TrimSuffix(strings.TrimSpace(string(name)), " (deleted)")
		if err := disk.Detach(image); err != nil {
			t.Error(err)
		}
	}
}

// thaw prevents a failed test from leaving a frozen filesystem, which cannot be
// unmounted.
func thaw(path string) {
	const fiThaw = 0xc0045878
	if fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
		_ = unix.IoctlSetInt(fd, fiThaw, 0)
		_ = unix.Close(fd)
	}
}

// AsNobody runs f on a thread without privileges, like a process without root.
func AsNobody(t testing.TB, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody); errno != 0 {
			done <- errno
			return
		}
		f()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
