package stage_test

import (
	"errors"
	"os"
	osexec "os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/driver/local/disk"
	"github.com/holdfast-io/holdfast/driver/local/disk/disktest"
	"github.com/holdfast-io/holdfast/driver/local/stage"
	"github.com/holdfast-io/holdfast/driver/local/volume"
)

func exec(path string) error { return osexec.Command(path).Run() }

// The table in the CSI spec, NodePublishVolume, for drivers with SINGLE_NODE_MULTI_WRITER.
func TestASecondPublication(t *testing.T) {
	t.Parallel()
	type changes []func(*stage.Publication)
	tests := map[string]struct {
		fsType        string
		first, second changes
		want          error
	}{
		"the same, exclusive":                     {disk.Ext4, changes{exclusive}, changes{exclusive}, nil},
		"the same place in another mode":          {disk.Ext4, changes{exclusive}, changes{}, stage.ErrConflictingUse},
		"the same place read-only":                {disk.Ext4, changes{}, changes{readOnly}, stage.ErrConflictingUse},
		"another place, exclusive":                {disk.Ext4, changes{exclusive}, changes{exclusive, elsewhere}, volume.ErrInUse},
		"another place next to an exclusive one":  {disk.Ext4, changes{exclusive}, changes{elsewhere}, volume.ErrInUse},
		"another place":                           {disk.Ext4, changes{}, changes{elsewhere}, nil},
		"another place read-only":                 {disk.Ext4, changes{}, changes{elsewhere, readOnly}, nil},
		"a raw device at another place":           {"", changes{}, changes{elsewhere}, nil},
		"a raw device read-only next to a writer": {"", changes{}, changes{elsewhere, readOnly}, volume.ErrInUse},
		"a raw device writable next to a reader":  {"", changes{readOnly}, changes{elsewhere}, volume.ErrInUse},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			v := m.create("v", tt.fsType, 20*mib, nil)
			must(t, m.stage(v))
			must(t, m.publish(v, tt.first...))
			wantErr(t, m.publish(v, tt.second...), tt.want)
			if tt.want == nil {
				return
			}
			// After the first publication is removed the second one succeeds.
			must(t, m.Unpublish(t.Context(), v.VolumeID, v.target))
			must(t, m.publish(v, tt.second...))
		})
	}
}

func TestReadOnlyPublicationRejectsWrites(t *testing.T) {
	t.Parallel()
	for name, fsType := range map[string]string{"filesystem": disk.Ext4, "raw device": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			v := m.create("v", fsType, 20*mib, nil)
			must(t, m.stage(v))
			must(t, m.publish(v, readOnly))
			f, err := os.OpenFile(v.file(), os.O_WRONLY|os.O_CREATE, 0o600)
			if err == nil {
				_, err = f.WriteString("x")
				f.Close()
			}
			if err == nil {
				t.Error("it was written to")
			}
			must(t, m.Unpublish(t.Context(), v.VolumeID, v.target))
			must(t, m.publish(v))
			m.write(v, "x")
		})
	}
}

func TestIncompatibleUses(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	filesystem, raw := m.create("fs", disk.Ext4, 20*mib, nil), m.create("raw", "", 20*mib, nil)
	tests := map[string]struct {
		do   func() error
		want error
	}{
		"a filesystem as a raw device": {func() error {
			return m.Stage(t.Context(), stage.Use{VolumeID: filesystem.VolumeID, Block: true}, filesystem.staging, nil)
		}, stage.ErrUnusable},
		"a raw device as a filesystem": {func() error {
			return m.Stage(t.Context(), stage.Use{VolumeID: raw.VolumeID}, raw.staging, nil)
		}, stage.ErrUnusable},
		"another filesystem": {func() error {
			return m.Stage(t.Context(), stage.Use{VolumeID: filesystem.VolumeID, FSType: disk.XFS}, filesystem.staging, nil)
		}, stage.ErrUnusable},
		"publishing before staging":          {func() error { return m.publish(filesystem) }, stage.ErrUnusable},
		"publishing a device before staging": {func() error { return m.publish(raw) }, stage.ErrUnusable},
		"staging what does not exist": {func() error {
			return m.Stage(t.Context(), stage.Use{VolumeID: "../../x"}, filesystem.staging, nil)
		}, volume.ErrNotFound},
		"stats of a path without the volume": {func() error {
			_, err := m.Stats(raw.VolumeID, raw.target)
			return err
		}, stage.ErrNotAtPath},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) { wantErr(t, tt.do(), tt.want) })
	}
}

func TestUndoIsIdempotent(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	for _, id := range []string{m.create("v", disk.Ext4, 20*mib, nil).VolumeID, "vol-00000000000000000000000000000000", "../../x"} {
		must(t, m.Unpublish(t.Context(), id, filepath.Join(m.dir, "nothing")))
		must(t, m.Unstage(t.Context(), id, filepath.Join(m.dir, "nothing")))
	}
}

func TestUnpublishKeepsForeignFiles(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	v := m.create("v", disk.Ext4, 20*mib, nil)
	must(t, os.Mkdir(v.target, 0o755))
	must(t, os.WriteFile(v.file(), nil, 0o600))
	if err := m.Unpublish(t.Context(), v.VolumeID, v.target); err == nil {
		t.Error("it was removed")
	}
	if _, err := os.Stat(v.file()); err != nil {
		t.Error(err)
	}
}

func TestAPublishedVolumeIsNotUnstaged(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, m *machine, fsType string) {
		v := m.create("v", fsType, 320*mib, nil)
		m.up(v)
		wantErr(t, m.Unstage(t.Context(), v.VolumeID, v.staging), volume.ErrInUse)
		m.write(v, "still there")
	})
}

// A pod that uses a volume whose image was removed must still be able to terminate.
func TestVolumeWithoutImageCanBeUnstaged(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, m *machine, fsType string) {
		v := m.create("v", fsType, 320*mib, nil)
		m.up(v)
		must(t, os.Remove(m.image(v)))
		problems, err := m.Health(v.VolumeID)
		must(t, err)
		if len(problems) != 1 || problems[0].Reason != "ImageMissing" {
			t.Errorf("health: %v", problems)
		}
		m.down(v)
		wantErr(t, m.stage(v), volume.ErrDamaged)
	})
}

func TestHealthOfAFilesystemThatStopped(t *testing.T) {
	t.Parallel()
	for name, fsType := range map[string]string{"ext4": disk.Ext4, "xfs": disk.XFS} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			v := m.create("v", fsType, 320*mib, nil)
			m.up(v)
			if problems, err := m.Health(v.VolumeID); err != nil || len(problems) > 0 {
				t.Fatalf("before: %v, %v", problems, err)
			}
			shutDown(t, v.staging)
			problems, err := m.Health(v.VolumeID)
			must(t, err)
			if len(problems) != 1 || problems[0].Reason != "FilesystemShutDown" || problems[0].Severity != volume.Inaccessible {
				t.Errorf("after: %v", problems)
			}
			m.down(v)
			m.up(v)
		})
	}
}

func TestHealthOfAFilesystemThatWentReadOnly(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	v := m.create("v", disk.Ext4, 20*mib, nil)
	must(t, m.stage(v, "errors=remount-ro"))
	must(t, m.publish(v))
	device := filepath.Base(m.devices(v)[0].Path)
	must(t, os.WriteFile(filepath.Join("/sys/fs/ext4", device, "trigger_fs_error"), []byte("for a test"), 0o200))
	problems, err := m.Health(v.VolumeID)
	must(t, err)
	if len(problems) != 1 || problems[0].Reason != "FilesystemReadOnly" || problems[0].Severity != volume.Degraded {
		t.Errorf("got %v", problems)
	}
	m.down(v)
	m.up(v)
	m.write(v, "works again")
}

// shutDown shuts a filesystem down, as it does itself after a disk error.
func shutDown(t *testing.T, path string) {
	t.Helper()
	const goingDown = 0x8004587d // _IOR('X', 125, __u32), for ext4 and XFS
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	must(t, unix.IoctlSetPointerInt(int(f.Fd()), goingDown, 1))
}

func TestReadOnlyFilesystemsDoNotGrow(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	v := m.create("v", disk.Ext4, 20*mib, nil)
	must(t, m.stage(v, "ro"))
	must(t, m.publish(v))
	_, err := m.Store.Expand(t.Context(), v.VolumeID, volume.Range{Required: 40 * mib})
	must(t, err)
	_, err = m.Expand(t.Context(), v.VolumeID, v.target, 0)
	wantErr(t, err, volume.ErrInUse)
}

func TestWithoutRootNothingIsStaged(t *testing.T) {
	m := newMachine(t)
	v := m.create("v", disk.Ext4, 20*mib, nil)
	disktest.AsNobody(t, func() {
		_, expand := m.Expand(t.Context(), v.VolumeID, v.target, 0)
		_, stats := m.Stats(v.VolumeID, v.target)
		for call, err := range map[string]error{"stage": m.stage(v), "publish": m.publish(v), "expand": expand, "stats": stats} {
			if !errors.Is(err, disk.ErrUnprivileged) {
				t.Errorf("%s: %v", call, err)
			}
		}
	})
}
