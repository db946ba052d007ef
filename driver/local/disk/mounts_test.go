package disk_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/driver/local/disk"
)

// mounted returns an image, its device, and the mount point of its ext4.
func mounted(t *testing.T) (image string, device disk.Device, path string) {
	t.Helper()
	image = newImage(t)
	path = filepath.Join(filepath.Dir(image), "mnt")
	must(t, os.Mkdir(path, 0o755))
	a := attach(t, image, false)
	must(t, disk.Mount(disk.Ext4, a.Device, path, []string{"noexec"}))
	must(t, a.Close())
	return image, a.Device, path
}

func TestBind(t *testing.T) {
	t.Parallel()
	_, device, path := mounted(t)
	tests := map[string]bool{"writable": false, "readonly": true}
	for name, readOnly := range tests {
		target := filepath.Join(filepath.Dir(path), name)
		must(t, os.Mkdir(target, 0o755))
		must(t, disk.Bind(path, target, readOnly))
		err := os.WriteFile(filepath.Join(target, "file"), nil, 0o600)
		if got := errors.Is(err, unix.EROFS); got != readOnly {
			t.Errorf("%s: writing: %v", name, err)
		}
		var st unix.Statfs_t
		must(t, unix.Statfs(target, &st))
		if st.Flags&unix.ST_NOEXEC == 0 {
			t.Errorf("%s: the source's noexec was lost", name)
		}
	}
	points, err := device.Mounts()
	must(t, err)
	if len(points) != 3 {
		t.Errorf("mounts: %v", points)
	}
	for _, p := range points {
		if p.ReadOnly != strings.HasSuffix(p.Path, "readonly") {
			t.Errorf("mount %+v", p)
		}
	}
}

func TestUnmountRemovesAllLayers(t *testing.T) {
	t.Parallel()
	_, _, path := mounted(t)
	must(t, disk.Bind(path, path, false))
	must(t, disk.Unmount(path))
	if there, err := disk.MountedAt(path); err != nil || there {
		t.Errorf("mounted = %t, %v", there, err)
	}
	must(t, disk.Unmount(path))
}

// Without this option the kernel writes the inode tables over time and fills the
// image.
func TestMountedExt4StaysSparse(t *testing.T) {
	t.Parallel()
	_, _, path := mounted(t)
	mounts, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(path))
	must(t, err)
	if len(mounts) != 1 || !strings.Contains(mounts[0].VFSOptions, "noinit_itable") {
		t.Errorf("mounts: %+v", mounts)
	}
}

func TestMountErrorsOmitFlags(t *testing.T) {
	t.Parallel()
	image := newImage(t)
	a := attach(t, image, false)
	err := disk.Mount(disk.Ext4, a.Device, filepath.Dir(image), []string{"secret=hunter2"})
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v", err)
	}
}

func TestNodes(t *testing.T) {
	t.Parallel()
	image := newImage(t)
	a := attach(t, image, true)
	target := filepath.Join(filepath.Dir(image), "node")
	must(t, os.WriteFile(target, nil, 0o600))
	must(t, disk.Bind(a.Path, target, false))
	nodes, err := a.Nodes()
	must(t, err)
	if len(nodes) != 1 || nodes[0].Path != target {
		t.Errorf("nodes: %v", nodes)
	}
}

func freezer(t *testing.T, image string) disk.Freezer {
	t.Helper()
	f := disk.Freezer{Dir: filepath.Join(filepath.Dir(image), "frozen")}
	must(t, os.Mkdir(f.Dir, 0o700))
	return f
}

// frozen reports whether the filesystem at path is frozen: it then cannot be frozen
// again. It leaves the state unchanged.
func frozen(t *testing.T, path string) bool {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	const freeze, thaw = 0xc0045877, 0xc0045878
	err = unix.IoctlSetInt(int(f.Fd()), freeze, 0)
	if errors.Is(err, unix.EBUSY) {
		return true
	}
	must(t, err)
	must(t, unix.IoctlSetInt(int(f.Fd()), thaw, 0))
	return false
}

func TestQuiesce(t *testing.T) {
	t.Parallel()
	t.Run("an unused image is quiesced", func(t *testing.T) {
		t.Parallel()
		image := newImage(t)
		freeze, err := freezer(t, image).Quiesce(image)
		must(t, err)
		if !freeze.Quiesced {
			t.Error("not still")
		}
		must(t, freeze.Thaw())
	})
	t.Run("a mounted filesystem is frozen until Thaw", func(t *testing.T) {
		t.Parallel()
		image, _, path := mounted(t)
		freeze, err := freezer(t, image).Quiesce(image)
		must(t, err)
		if !freeze.Quiesced || !frozen(t, path) {
			t.Error("not frozen")
		}
		must(t, freeze.Thaw())
		if frozen(t, path) {
			t.Error("still frozen")
		}
	})
	t.Run("a raw device in use is not quiesced", func(t *testing.T) {
		t.Parallel()
		image := newImage(t)
		a := attach(t, image, true)
		f := freezer(t, image)
		freeze, err := f.Quiesce(image)
		must(t, err)
		if !freeze.Quiesced {
			t.Error("not quiesced although nothing uses it")
		}
		target := filepath.Join(filepath.Dir(image), "node")
		must(t, os.WriteFile(target, nil, 0o600))
		must(t, disk.Bind(a.Path, target, false))
		freeze, err = f.Quiesce(image)
		must(t, err)
		if freeze.Quiesced {
			t.Error("quiesced although it is published")
		}
	})
}

func TestRecoverThaws(t *testing.T) {
	t.Parallel()
	t.Run("a freeze of a dead process is thawed", func(t *testing.T) {
		t.Parallel()
		image, _, path := mounted(t)
		f := freezer(t, image)
		_, err := f.Quiesce(image)
		must(t, err)
		must(t, f.Recover())
		if frozen(t, path) {
			t.Error("still frozen")
		}
		must(t, f.Recover())
	})
	t.Run("a foreign freeze stays", func(t *testing.T) {
		t.Parallel()
		image, _, path := mounted(t)
		f := freezer(t, image)
		other := disk.Freezer{Dir: f.Dir}
		theirs, err := other.Quiesce(image)
		must(t, err)
		must(t, os.RemoveAll(f.Dir))
		must(t, os.Mkdir(f.Dir, 0o700))
		ours, err := f.Quiesce(image)
		must(t, err)
		must(t, ours.Thaw())
		if !ours.Quiesced || !frozen(t, path) {
			t.Error("thawed")
		}
		must(t, os.WriteFile(filepath.Join(f.Dir, "image"), []byte(path), 0o600))
		must(t, theirs.Thaw())
	})
}

// fsfreeze is what an administrator or a backup program runs.
func fsfreeze(t *testing.T, path string, freeze bool) {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	request := uint(0xc0045878)
	if freeze {
		request = 0xc0045877
	}
	must(t, unix.IoctlSetInt(int(f.Fd()), request, 0))
}

// write is durable when it returns.
func write(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(path, "file"), os.O_CREATE|os.O_WRONLY|unix.O_SYNC, 0o600)
	must(t, err)
	_, err = f.WriteString("x")
	must(t, errors.Join(err, f.Close()))
}

// Any process may freeze a filesystem, and thaw it.
func TestForeignThawIsDetected(t *testing.T) {
	t.Parallel()
	freeze := func(t *testing.T, path string) { fsfreeze(t, path, true) }
	thaw := func(t *testing.T, path string) { fsfreeze(t, path, false) }
	thawForAWhile := func(t *testing.T, path string) { thaw(t, path); write(t, path); freeze(t, path) }
	nothing := func(*testing.T, string) {}
	tests := map[string]struct {
		before, meanwhile func(t *testing.T, path string)
		want              error
		// frozen is the expected state afterwards.
		frozen bool
	}{
		"they keep it frozen":              {freeze, nothing, nil, true},
		"they thaw it":                     {freeze, thaw, disk.ErrThawed, false},
		"they thaw it for a while":         {freeze, thawForAWhile, disk.ErrThawed, true},
		"they thaw what we froze":          {nothing, thaw, disk.ErrThawed, false},
		"they thaw ours for a while":       {nothing, thawForAWhile, disk.ErrThawed, false},
		"nobody touches it":                {nothing, nothing, nil, false},
		"they froze and thawed it earlier": {func(t *testing.T, path string) { freeze(t, path); thaw(t, path) }, nothing, nil, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			image, _, path := mounted(t)
			write(t, path)
			f := freezer(t, image)
			tt.before(t, path)
			freeze, err := f.Quiesce(image)
			must(t, err)
			if !freeze.Quiesced {
				t.Error("not still")
			}
			tt.meanwhile(t, path)
			if err := freeze.Thaw(); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if frozen(t, path) != tt.frozen {
				t.Errorf("frozen = %t", !tt.frozen)
			}
			records, err := os.ReadDir(f.Dir)
			must(t, err)
			if len(records) > 0 {
				t.Errorf("still on record: %v", records)
			}
		})
	}
	t.Run("the counters are off", func(t *testing.T) {
		t.Parallel()
		image, a, path := mounted(t)
		counters := filepath.Join("/sys/block", filepath.Base(a.Path), "queue/iostats")
		must(t, os.WriteFile(counters, []byte("0"), 0o600))
		t.Cleanup(func() { must(t, os.WriteFile(counters, []byte("1"), 0o600)) }) // The device keeps the setting for its next image.
		freeze(t, path)
		f := freezer(t, image)
		freeze, err := f.Quiesce(image)
		must(t, err)
		if freeze.Quiesced {
			t.Error("quiesced although writes are not counted")
		}
		thaw(t, path)
		must(t, freeze.Thaw())
		// A foreign thaw is still detected if this process froze the filesystem.
		freeze, err = f.Quiesce(image)
		must(t, err)
		thaw(t, path)
		if err := freeze.Thaw(); !errors.Is(err, disk.ErrThawed) {
			t.Errorf("got %v", err)
		}
	})
}
