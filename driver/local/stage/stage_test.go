package stage_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/driver/local/disk"
	"github.com/holdfast-io/holdfast/driver/local/disk/disktest"
	"github.com/holdfast-io/holdfast/driver/local/stage"
	"github.com/holdfast-io/holdfast/driver/local/volume"
)

const mib = 1 << 20

// machine is a stager with its own data directory.
type machine struct {
	*stage.Stager
	t   *testing.T
	dir string
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	disktest.NeedRoot(t)
	m := &machine{t: t, dir: disktest.Dir(t)}
	store, err := volume.Open(filepath.Join(m.dir, "data"), volume.Options{Capacity: 1 << 40})
	must(t, err)
	t.Cleanup(func() { must(t, store.Close()) })
	m.Stager = &stage.Stager{Store: store}
	return m
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}

// vol is a volume and its use in a test.
type vol struct {
	stage.Use
	staging, target string
}

// paths adds this machine's paths to the use of a volume.
func (m *machine) paths(id, fsType string) vol {
	v := vol{
		Use:     stage.Use{VolumeID: id, Block: fsType == "", FSType: fsType},
		staging: filepath.Join(m.dir, id+"-staging"),
		target:  filepath.Join(m.dir, id+"-target"),
	}
	must(m.t, os.MkdirAll(v.staging, 0o755))
	return v
}

// create creates a volume; fsType "" is a raw device.
func (m *machine) create(name, fsType string, size int64, source *volume.Source) vol {
	m.t.Helper()
	v, err := m.Store.Create(m.t.Context(), volume.Spec{
		Name: name, Range: volume.Range{Required: size}, FSType: fsType, Source: source,
		Access: volume.Access{Mount: fsType != "", Block: fsType == ""},
	})
	must(m.t, err)
	return m.paths(v.ID, fsType)
}

func (m *machine) stage(v vol, flags ...string) error {
	return m.Stage(m.t.Context(), v.Use, v.staging, flags)
}

func (m *machine) publish(v vol, change ...func(*stage.Publication)) error {
	p := stage.Publication{Use: v.Use, Staging: v.staging, Target: v.target}
	for _, c := range change {
		c(&p)
	}
	return m.Publish(m.t.Context(), p)
}

func readOnly(p *stage.Publication)  { p.ReadOnly = true }
func exclusive(p *stage.Publication) { p.Exclusive = true }
func elsewhere(p *stage.Publication) {
	p.Target += "2"
}

func (m *machine) up(v vol) {
	m.t.Helper()
	must(m.t, m.stage(v))
	must(m.t, m.publish(v))
}

func (m *machine) down(v vol) {
	m.t.Helper()
	must(m.t, m.Unpublish(m.t.Context(), v.VolumeID, v.target))
	must(m.t, m.Unstage(m.t.Context(), v.VolumeID, v.staging))
	m.detached(v)
}

// detached waits until the volume's device is detached. The kernel detaches it with
// its last user, and a cluster node that starts during this test has a copy of each
// mount of the machine for a moment.
func (m *machine) detached(v vol) {
	m.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		left := m.devices(v)
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			m.t.Fatalf("still attached to %s", left[0].Path)
		}
	}
}

func (m *machine) devices(v vol) []disk.Device {
	m.t.Helper()
	devices, err := disk.Find(m.image(v))
	must(m.t, err)
	return devices
}

func (m *machine) image(v vol) string {
	return m.Store.ImagePath(volume.Volume{ID: v.VolumeID})
}

// file is the path of the test data on a published volume.
func (v vol) file() string {
	if v.Block {
		return v.target
	}
	return filepath.Join(v.target, "file")
}

// noForks prevents the tools that parallel tests start from inheriting, until exec,
// what this test has open: a busy mount cannot be removed.
func noForks() (allow func()) {
	syscall.ForkLock.RLock()
	return syscall.ForkLock.RUnlock
}

func (m *machine) write(v vol, content string) {
	m.t.Helper()
	defer noForks()()
	f, err := os.OpenFile(v.file(), os.O_WRONLY|os.O_CREATE, 0o600)
	must(m.t, err)
	_, err = f.WriteString(content)
	must(m.t, err)
	must(m.t, f.Close()) // not synced: the driver must do that
}

func (m *machine) wantContent(v vol, content string) {
	m.t.Helper()
	defer noForks()()
	f, err := os.Open(v.file())
	must(m.t, err)
	defer f.Close()
	got := make([]byte, len(content))
	_, err = f.Read(got)
	must(m.t, err)
	if string(got) != content {
		m.t.Errorf("the volume holds %q, want %q", got, content)
	}
}

// wantSize checks that the published volume has about that many bytes.
func (m *machine) wantSize(v vol, size int64) {
	m.t.Helper()
	s, err := m.Stats(v.VolumeID, v.target)
	must(m.t, err)
	if s.Block != v.Block || s.Bytes > size || s.Bytes < size*7/10 {
		m.t.Errorf("stats = %+v, want %d bytes", s, size)
	}
	if !v.Block && (s.Inodes == 0 || s.BytesAvailable == 0) {
		m.t.Errorf("stats = %+v, want inodes and free bytes", s)
	}
}

// kinds are the three ways to use a volume.
var kinds = map[string]string{"ext4": disk.Ext4, "xfs": disk.XFS, "raw device": ""}

func eachKind(t *testing.T, f func(t *testing.T, m *machine, fsType string)) {
	for name, fsType := range kinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(t, newMachine(t), fsType)
		})
	}
}

func TestDataSurvivesUnstaging(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, m *machine, fsType string) {
		v := m.create("v", fsType, 320*mib, nil)
		for range 2 { // each call twice: the second changes nothing
			must(t, m.stage(v))
		}
		for range 2 {
			must(t, m.publish(v))
		}
		m.write(v, "precious")
		m.wantSize(v, 320*mib)
		m.down(v)
		m.down(v)
		if _, err := os.Lstat(v.target); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the target is still there: %v", err)
		}
		m.up(v)
		m.wantContent(v, "precious")
	})
}

func TestExpandWhileInUse(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, m *machine, fsType string) {
		v := m.create("v", fsType, 320*mib, nil)
		m.up(v)
		m.write(v, "precious")
		_, err := m.Expand(t.Context(), v.VolumeID, v.target, 640*mib)
		wantErr(t, err, volume.ErrOutOfRange) // only the controller grows the volume
		_, err = m.Store.Expand(t.Context(), v.VolumeID, volume.Range{Required: 640 * mib})
		must(t, err)
		if !disk.CanGrowMounted(fsType) {
			// The kernel does not allow this process to grow it. The error must be the
			// one after which kubelet grows the filesystem at the next start of the
			// pod, and that must work.
			_, err := m.Expand(t.Context(), v.VolumeID, v.target, 640*mib)
			wantErr(t, err, volume.ErrInUse)
			m.down(v)
			m.up(v)
			m.wantSize(v, 640*mib)
			m.wantContent(v, "precious")
			return
		}
		for range 2 {
			size, err := m.Expand(t.Context(), v.VolumeID, v.target, 640*mib)
			must(t, err)
			if size != 640*mib {
				t.Errorf("size = %d", size)
			}
		}
		m.wantSize(v, 640*mib)
		m.wantContent(v, "precious")
	})
}

func TestExpandedWhileNotInUseGrowsWhenStaged(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, m *machine, fsType string) {
		v := m.create("v", fsType, 320*mib, nil)
		m.up(v)
		m.down(v)
		_, err := m.Store.Expand(t.Context(), v.VolumeID, volume.Range{Required: 640 * mib})
		must(t, err)
		_, err = m.Expand(t.Context(), v.VolumeID, v.target, 640*mib)
		wantErr(t, err, stage.ErrNotAtPath)
		m.up(v)
		m.wantSize(v, 640*mib)
	})
}

// The copy contains written data that was not synced, while the source stays in use.
// Both are mounted at the same time, which XFS allows only once per UUID without
// nouuid.
func TestClonesAndSnapshotsOfVolumesInUse(t *testing.T) {
	t.Parallel()
	for name, fsType := range map[string]string{"ext4": disk.Ext4, "xfs": disk.XFS} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			v := m.create("v", fsType, 320*mib, nil)
			m.up(v)
			m.write(v, "before")
			snap, err := m.Store.CreateSnapshot(t.Context(), "s", v.VolumeID)
			must(t, err)
			clone := m.create("clone", fsType, 640*mib, &volume.Source{Kind: volume.FromVolume, ID: v.VolumeID})
			m.write(v, "after!")
			m.up(clone)
			m.wantContent(clone, "before")
			m.wantSize(clone, 640*mib)
			m.down(v)
			must(t, m.Store.Delete(t.Context(), v.VolumeID))

			restored := m.create("restored", fsType, 0, &volume.Source{Kind: volume.FromSnapshot, ID: snap.ID})
			must(t, m.Store.DeleteSnapshot(t.Context(), snap.ID))
			m.up(restored)
			m.wantContent(restored, "before")
			m.wantSize(restored, 320*mib)
		})
	}
}

func TestCopiesOfARawDevice(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	v := m.create("v", "", 8*mib, nil)
	m.up(v)
	m.write(v, "before")
	// The filesystem of the data directory may or may not support reflinks.
	_, err := m.Store.CreateSnapshot(t.Context(), "while in use", v.VolumeID)
	if err != nil {
		wantErr(t, err, volume.ErrInUse)
	}
	must(t, m.Unpublish(t.Context(), v.VolumeID, v.target))
	clone := m.create("clone", "", 16*mib, &volume.Source{Kind: volume.FromVolume, ID: v.VolumeID})
	m.up(clone)
	m.wantContent(clone, "before")
	m.wantSize(clone, 16*mib)
}

func TestDataIsNeverFormattedOver(t *testing.T) {
	t.Parallel()
	spoil := func(at int64, content string) func(m *machine, v vol) {
		return func(m *machine, v vol) {
			f, err := os.OpenFile(m.image(v), os.O_WRONLY, 0)
			must(m.t, err)
			_, err = f.WriteAt([]byte(content), at)
			must(m.t, errors.Join(err, f.Close()))
		}
	}
	stageOnce := func(m *machine, v vol) { m.up(v); m.down(v) }
	tests := map[string]struct {
		prepare []func(m *machine, v vol)
		want    error
	}{
		"unknown data at the end":           {[]func(*machine, vol){spoil(20*mib-1, "x")}, stage.ErrUnusable},
		"another filesystem":                {[]func(*machine, vol){spoil(0, "XFSB")}, stage.ErrUnusable},
		"a filesystem that lost its magic":  {[]func(*machine, vol){stageOnce, spoil(0x438, "\x00\x00")}, volume.ErrDamaged},
		"a filesystem with an erased start": {[]func(*machine, vol){stageOnce, spoil(0, strings.Repeat("\x00", mib))}, volume.ErrDamaged},
		"the same type, created by somebody else": {[]func(*machine, vol){func(m *machine, v vol) {
			must(m.t, disk.Format(disk.Ext4, m.image(v)))
		}}, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			v := m.create("v", disk.Ext4, 20*mib, nil)
			for _, p := range tt.prepare {
				p(m, v)
			}
			before, err := os.ReadFile(m.image(v))
			must(t, err)
			err = m.stage(v)
			wantErr(t, err, tt.want)
			if tt.want == nil {
				return
			}
			after, err := os.ReadFile(m.image(v))
			must(t, err)
			if !bytes.Equal(before, after) {
				t.Error("the image was changed")
			}
		})
	}
}

// A process may die at any point of a call. Each row is the state that the next
// process finds.
func TestStagingResumesAfterACrash(t *testing.T) {
	t.Parallel()
	tests := map[string]func(m *machine, v vol){
		"mkfs was recorded": func(m *machine, v vol) {
			setFormat(m, v, volume.Formatting)
		},
		"mkfs was interrupted": func(m *machine, v vol) {
			setFormat(m, v, volume.Formatting)
			must(m.t, os.WriteFile(m.image(v), bytes.Repeat([]byte("half"), 20*mib/4), 0o600))
		},
		"mkfs was complete but not recorded": func(m *machine, v vol) {
			setFormat(m, v, volume.Formatting)
			must(m.t, disk.Format(disk.Ext4, m.image(v)))
		},
		"a device was left": func(m *machine, v vol) {
			a, err := disk.Attach(m.image(v), true)
			must(m.t, errors.Join(err, a.Close()))
		},
		"the filesystem did not grow": func(m *machine, v vol) {
			must(m.t, m.stage(v))
			must(m.t, m.Unstage(m.t.Context(), v.VolumeID, v.staging))
			_, err := m.Store.Expand(m.t.Context(), v.VolumeID, volume.Range{Required: 40 * mib})
			must(m.t, err)
		},
		"the target was created and not mounted": func(m *machine, v vol) {
			must(m.t, m.stage(v))
			must(m.t, os.Mkdir(v.target, 0o750))
		},
		"the publication was recorded": func(m *machine, v vol) {
			must(m.t, m.stage(v))
			must(m.t, m.Store.SetPublished(v.VolumeID, map[string]volume.Publication{v.target: {ReadOnly: true}, "/gone": {Exclusive: true}}))
		},
	}
	for name, leave := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			v := m.create("v", disk.Ext4, 20*mib, nil)
			leave(m, v)
			m.up(v)
			m.write(v, "precious")
			record, err := m.Store.Volume(v.VolumeID)
			must(t, err)
			m.wantSize(v, record.Size)
			m.down(v)
			m.up(v)
			m.wantContent(v, "precious")
		})
	}
}

// What the data does not show afterwards must be recorded before.
func TestMkfsIsRecordedBeforeItStarts(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	v := m.create("v", disk.Ext4, 20*mib, nil)
	immutable(t, m.image(v), true)
	if err := m.stage(v); err == nil {
		t.Fatal("mkfs worked")
	}
	immutable(t, m.image(v), false)
	record, err := m.Store.Volume(v.VolumeID)
	must(t, err)
	if record.Format != volume.Formatting {
		t.Errorf("format = %q", record.Format)
	}
	m.up(v)
}

// immutable makes a file reject all writes, even by root.
func immutable(t *testing.T, path string, on bool) {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	flags := 0
	if on {
		flags = unix.STATX_ATTR_IMMUTABLE // the same bit as FS_IMMUTABLE_FL
		t.Cleanup(func() { immutable(t, path, false) })
	}
	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags); err != nil && on {
		t.Fatal(err)
	}
}

func TestOpenDeviceIsNotFormatted(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	v := m.create("v", disk.Ext4, 20*mib, nil)
	a, err := disk.Attach(m.image(v), true)
	must(t, err)
	wantErr(t, m.stage(v), volume.ErrInUse)
	must(t, a.Close())
	m.up(v)
}

func setFormat(m *machine, v vol, f volume.Format) {
	m.t.Helper()
	record, err := m.Store.Volume(v.VolumeID)
	must(m.t, err)
	_, err = m.Store.SetFormat(record, f)
	must(m.t, err)
}

func TestMountFlags(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	v := m.create("v", disk.Ext4, 20*mib, nil)
	must(t, m.stage(v, "noexec"))
	must(t, m.publish(v))
	must(t, os.WriteFile(v.file(), []byte("#!/bin/sh\n"), 0o700))
	if err := exec(v.file()); err == nil {
		t.Error("noexec is not in force")
	}
	m.down(v)
	must(t, m.stage(v, "ro"))
	wantErr(t, m.stage(v), stage.ErrConflictingUse)
	must(t, m.publish(v))
	if err := os.WriteFile(v.file(), nil, 0o600); err == nil {
		t.Error("ro is not in force")
	}
}
