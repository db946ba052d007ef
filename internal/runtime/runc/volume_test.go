package runc

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/ephemeral"
	"github.com/holdfast-io/holdfast/internal/runtime"
)

// newTestVolume returns the copy of a directory.
func newTestVolume(t *testing.T, dir string, limit int64) *volume {
	t.Helper()
	v, err := newVolume(runtime.Volume{Name: "data", Dir: dir}, t.TempDir(), limit)
	must(t, err)
	t.Cleanup(func() { v.staged.Close() })
	return v
}

func TestVolumeIsSavedAsItIs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	must(t,
		os.WriteFile(in(".wh.name"), []byte("text"), 0o600),
		unix.Mknod(in("of-an-overlay"), unix.S_IFCHR, 0),
		os.Mkdir(in("upper"), 0o700),
		unix.Setxattr(in("upper"), "trusted.overlay.opaque", []byte("y"), 0),
		unix.Chmod(dir, 0o2770))
	v := newTestVolume(t, dir, 1<<20)
	must(t, v.scan())
	want := map[string]string{
		"./": "5 2770 ", ".wh.name": "0 600 text", "of-an-overlay": "3 0 ", "upper/": "5 700 ",
	}
	if diff := cmp.Diff(want, archiveOf(t, v.layer)); diff != "" {
		t.Error(diff)
	}
	for _, e := range v.entries {
		if e.header.Name == "upper/" && e.header.PAXRecords["SCHILY.xattr.trusted.overlay.opaque"] != "y" {
			t.Errorf("an attribute of overlayfs was left out: %v", e.header.PAXRecords)
		}
	}
}

func TestVolumeWithMoreThanItsLimitIsRejected(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "a"), make([]byte, 600), 0o600), os.WriteFile(filepath.Join(dir, "b"), make([]byte, 600), 0o600))
	v := newTestVolume(t, dir, 1000)
	err := v.scan()
	if runtime.ReasonOf(err) != runtime.VolumeTooLarge || runtime.IsRetryable(err) || !strings.Contains(err.Error(), "ephemeralVolumes.sizeLimit") {
		t.Errorf("%v", err)
	}
	if v.size > 1000 {
		t.Errorf("%d bytes were copied", v.size)
	}
}

// The times of a file in a tmpfs do not change when it is written by a mapping, and by the time
// of the second scan it may not be mapped any more.
func TestVolumeInRAMIsReadWhileTheContainerIsFrozen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"))
	t.Cleanup(func() { must(t, unix.Unmount(dir, 0)) })
	name := filepath.Join(dir, "file")
	must(t, os.WriteFile(name, []byte("old "), 0o600))
	v := newTestVolume(t, dir, 1<<20)
	must(t, v.scan())
	if v.size != 0 {
		t.Errorf("%d bytes were copied while the container runs, which are of no use", v.size)
	}
	writeMapped(t, name, "new!")
	v.frozen = true
	must(t, v.scan())
	if got := archiveOf(t, v.layer)["file"]; got != "0 600 new!" {
		t.Errorf("the file is saved as %q", got)
	}
}

// writeMapped changes the start of a file by a mapping, which is gone when it returns.
func writeMapped(t *testing.T, name, text string) {
	t.Helper()
	file, err := os.OpenFile(name, os.O_RDWR, 0)
	must(t, err)
	defer file.Close()
	memory, err := unix.Mmap(int(file.Fd()), 0, len(text), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, err)
	copy(memory, text)
	must(t, unix.Munmap(memory))
}

func TestVolumeEndsAtOtherFileSystems(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	inner := filepath.Join(dir, "mounted")
	must(t, os.Mkdir(inner, 0o700), unix.Mount("tmpfs", inner, "tmpfs", 0, "size=1m"))
	t.Cleanup(func() { must(t, unix.Unmount(inner, 0)) })
	must(t, os.WriteFile(filepath.Join(inner, "foreign"), nil, 0o600))
	v := newTestVolume(t, dir, 1<<20)
	must(t, v.scan())
	if _, ok := archiveOf(t, v.layer)["mounted/foreign"]; ok {
		t.Error("a file of another file system is in the archive")
	}
}

// A container can replace its files while they are read: what it puts there must not lead the
// agent to the files of the node.
func TestCopyNeverLeavesTheDirectory(t *testing.T) {
	t.Parallel()
	dir, outside := t.TempDir(), t.TempDir()
	must(t, os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o600))
	top, err := os.Open(dir)
	must(t, err)
	defer top.Close()
	v := newTestVolume(t, dir, 1<<20)
	place := func(name string) filePlace { return filePlace{dir: int(top.Fd()), name: name, path: name} }

	must(t, os.WriteFile(filepath.Join(dir, "file"), []byte("text"), 0o600))
	found, err := place("file").stat()
	must(t, err, os.Remove(filepath.Join(dir, "file")), os.Symlink(filepath.Join(outside, "secret"), filepath.Join(dir, "file")))
	if err := v.add(place("file"), &found); !errors.Is(err, unix.ELOOP) && !errors.Is(err, unix.EINVAL) {
		t.Errorf("a file that a link has replaced: %v", err)
	}
	must(t, os.Remove(filepath.Join(dir, "file")), os.Link(filepath.Join(outside, "secret"), filepath.Join(dir, "file")))
	if err := v.add(place("file"), &found); !errors.Is(err, unix.ENOENT) {
		t.Errorf("a file that another one has replaced: %v", err)
	}
	must(t, os.Remove(filepath.Join(dir, "file")), unix.Mkfifo(filepath.Join(dir, "file"), 0o600))
	if err := v.add(place("file"), &found); !errors.Is(err, unix.ENOENT) {
		t.Errorf("a file that a pipe has replaced: %v", err)
	}
	must(t, os.Symlink(outside, filepath.Join(dir, "link")), v.scanDir(place("link"), found.Dev))
	if v.size != 0 {
		t.Errorf("%d bytes were copied", v.size)
	}
}

func TestCopyOfAnOldFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	name := filepath.Join(dir, "file")
	must(t, os.WriteFile(name, []byte("old "), 0o600))
	time.Sleep(2 * timeGranularity) // until the file is old
	v := newTestVolume(t, dir, 1<<20)
	must(t, v.scan())
	inode, err := filePlace{dir: unix.AT_FDCWD, name: name}.stat()
	must(t, err)
	v.mapped = mappedFiles{inodes: map[uint64]bool{inode.Ino: true}}
	if must(t, v.scan()); v.size != 8 {
		t.Errorf("a file that is mapped for writing was not read again: %d bytes were copied", v.size)
	}
}

func TestSharedMemoryOf(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		mounts []mountSpec
		want   string
	}{
		"the pod's":                            {[]mountSpec{{"/proc", "proc", nil}, {"/dev/shm", "/run/sandbox/shm", []string{"rbind", "ro"}}}, "/run/sandbox/shm"},
		"the container's own is saved by CRIU": {[]mountSpec{{"/dev/shm", "shm", []string{"size=64m"}}}, ""},
		"none":                                 {nil, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := sharedMemoryOf(test.mounts); got != test.want {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
	if ephemeral.FileName(ephemeral.SharedMemory) != "volumes/dev_shm.tar" {
		t.Error("the name of the archive has changed: it is on record")
	}
}
