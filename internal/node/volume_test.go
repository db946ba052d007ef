package node

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/store"
	"github.com/holdfast-io/holdfast/internal/store/storetest"
)

// inKubeletDir returns a Checkpoint whose pod has a directory for its volume.
func inKubeletDir(t *testing.T, s *Stores, plugin string) (c *v1alpha1.Checkpoint, dir string) {
	t.Helper()
	dir = filepath.Join(s.KubeletDir, "pods", "p1", "volumes", plugin, "pv", "mount")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return &v1alpha1.Checkpoint{Status: v1alpha1.CheckpointStatus{
		Storage: &v1alpha1.CheckpointStorage{Backend: v1alpha1.BackendPVC, PVC: &v1alpha1.PVCStorage{ClaimName: "data"}},
		Volume:  &v1alpha1.CheckpointVolume{ClaimName: "data", PodName: "checkpoint-1", PodUID: "p1", VolumeName: "pv"},
	}}, dir
}

func TestVolumeOfAPod(t *testing.T) {
	t.Parallel()
	s := &Stores{KubeletDir: t.TempDir()}
	c, dir := inKubeletDir(t, s, csiPlugin)
	if err := unix.Mount("volume-test", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Fatalf("mounting a tmpfs, which needs root: %v", err)
	}
	t.Cleanup(func() { storetest.Unmount(t, dir) })
	// A user who can write to the volume plants links out of it.
	outside := t.TempDir()
	if err := os.Symlink(outside, filepath.Join(dir, "linked")); err != nil {
		t.Fatal(err)
	}
	place, err := s.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if err := place.Check(t.Context()); err != nil {
		t.Error(err)
	}
	if got := place.Location("1/main.ckpt"); got != "pvc:data/1/main.ckpt" {
		t.Errorf("the location is %s", got)
	}
	if w, err := place.Create(t.Context(), "linked/main.ckpt"); err == nil {
		t.Errorf("an archive is written through a link: %v", w.Abort())
	}
	if found, err := os.ReadDir(outside); err != nil || len(found) > 0 {
		t.Errorf("outside of the volume: %v, %v", found, err)
	}
}

func TestVolumesThatCannotBeUsed(t *testing.T) {
	for name, row := range map[string]struct {
		plugin string
		change func(*v1alpha1.CheckpointVolume)
		err    error
		says   string
	}{
		"a directory without a mount is the node's disk": {
			csiPlugin, func(*v1alpha1.CheckpointVolume) {}, store.ErrUnavailable, "no volume is mounted",
		},
		"a volume that is not from a CSI driver": {
			"kubernetes.io~nfs", func(*v1alpha1.CheckpointVolume) {}, store.ErrInvalid, "not from a CSI driver",
		},
		"the pod is not recorded":    {csiPlugin, func(v *v1alpha1.CheckpointVolume) { v.PodUID = "" }, store.ErrUnavailable, "not mounted"},
		"the pod has another's path": {csiPlugin, func(v *v1alpha1.CheckpointVolume) { v.PodUID = types.UID("../p2") }, store.ErrInvalid, `the name "../p2"`},
		"the volume has a path":      {csiPlugin, func(v *v1alpha1.CheckpointVolume) { v.VolumeName = "pv/x" }, store.ErrInvalid, `the name "pv/x"`},
		"the volume has no name":     {csiPlugin, func(v *v1alpha1.CheckpointVolume) { v.VolumeName = "" }, store.ErrInvalid, `the name ""`},
	} {
		t.Run(name, func(t *testing.T) {
			s := &Stores{KubeletDir: t.TempDir()}
			c, _ := inKubeletDir(t, s, row.plugin)
			row.change(c.Status.Volume)
			place, err := s.Open(t.Context(), c)
			if err == nil {
				err = place.Check(t.Context())
			}
			if !errors.Is(err, row.err) || !strings.Contains(err.Error(), row.says) {
				t.Errorf("got %v, want %v with %q", err, row.err, row.says)
			}
		})
	}
}
