package stage_test

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/driver/local/disk"
	"github.com/holdfast-io/holdfast/driver/local/disk/disktest"
	"github.com/holdfast-io/holdfast/driver/local/stage"
	"github.com/holdfast-io/holdfast/driver/local/volume"
)

// twoNodes returns the drivers of two nodes that share a data directory. The first one
// is also the controller.
func twoNodes(t *testing.T) (m, other *machine) {
	t.Helper()
	disktest.NeedRoot(t)
	dir := disktest.Dir(t)
	on := func(node string, nodeOnly bool) *machine {
		store, err := volume.Open(filepath.Join(dir, "data"), volume.Options{Capacity: 1 << 40, Shared: true, Node: node, NodeOnly: nodeOnly})
		must(t, err)
		t.Cleanup(func() { must(t, store.Close()) })
		own := filepath.Join(dir, node)
		must(t, os.Mkdir(own, 0o755))
		return &machine{Stager: &stage.Stager{Store: store}, t: t, dir: own}
	}
	return on("n1", false), on("n2", true)
}

// attach attaches the volume to a node and returns its use there.
func (m *machine) attach(v vol, node string, readOnly bool) vol {
	m.t.Helper()
	a, err := m.Store.Attach(m.t.Context(), v.VolumeID, volume.Attachment{Node: node, Block: v.Block, FSType: v.FSType, ReadOnly: readOnly})
	must(m.t, err)
	v.Token = a.Token
	return v
}

func (m *machine) detach(v vol, node string) {
	m.t.Helper()
	must(m.t, m.Store.Detach(m.t.Context(), v.VolumeID, node))
}

// on returns the use of a volume at the paths of another node.
func (v vol) on(m *machine) vol {
	w := m.paths(v.VolumeID, v.FSType)
	w.Token = v.Token
	return w
}

func eachKindOnTwoNodes(t *testing.T, f func(t *testing.T, m, other *machine, v vol)) {
	for name, fsType := range kinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, other := twoNodes(t)
			f(t, m, other, m.create("v", fsType, 320*mib, nil))
		})
	}
}

func TestAVolumeMovesFromNodeToNode(t *testing.T) {
	t.Parallel()
	eachKindOnTwoNodes(t, func(_ *testing.T, m, other *machine, v vol) {
		v = m.attach(v, "n1", false)
		for range 2 {
			m.up(v)
		}
		m.write(v, "precious")
		m.down(v)
		m.detach(v, "n1")
		v = m.attach(v, "n2", false).on(other)
		other.up(v)
		other.wantContent(v, "precious")
		other.down(v)
	})
}

func TestStalePublicationIsRejected(t *testing.T) {
	t.Parallel()
	eachKindOnTwoNodes(t, func(t *testing.T, m, other *machine, v vol) {
		wantErr(t, m.stage(v), volume.ErrNotAttached)
		old := m.attach(v, "n1", false)
		wantErr(t, other.stage(old.on(other)), volume.ErrNotAttached)
		m.up(old)
		// The node is assumed to be dead but is running.
		m.detach(v, "n1")
		wantErr(t, m.stage(old), volume.ErrNotAttached)
		wantErr(t, m.publish(old, elsewhere), volume.ErrNotAttached)
		m.attach(v, "n2", false)
		wantErr(t, m.stage(old), volume.ErrNotAttached)
		m.detach(v, "n2")
		m.attach(v, "n1", false)
		wantErr(t, m.stage(old), volume.ErrNotAttached)
		m.down(old) // unstaging always succeeds
	})
}

func TestReadOnlyAttachmentAppliesToAllUses(t *testing.T) {
	t.Parallel()
	eachKindOnTwoNodes(t, func(t *testing.T, m, _ *machine, v vol) {
		v = m.attach(v, "n1", true)
		for range 2 {
			m.up(v)
		}
		f, err := os.OpenFile(v.file(), os.O_WRONLY|os.O_CREATE, 0o600)
		if err == nil {
			_, err = f.WriteString("x")
			f.Close()
		}
		if err == nil {
			t.Error("it was written to")
		}
		m.down(v)
	})
}

// A node that kept running when its volume was detached has the filesystem mounted,
// visible to no other node. The next node can stage the volume only after that mount
// is gone.
func TestTwoNodesNeverHaveOneFilesystemMounted(t *testing.T) {
	t.Parallel()
	for _, fsType := range []string{disk.Ext4, disk.XFS} {
		t.Run(fsType, func(t *testing.T) {
			t.Parallel()
			m, other := twoNodes(t)
			v := m.attach(m.create("v", fsType, 320*mib, nil), "n1", false)
			m.up(v)
			m.write(v, "precious")
			end := hide(t, v)
			m.detach(v, "n1")
			w := m.attach(v, "n2", false).on(other)
			wantErr(t, other.stage(w), volume.ErrInUse)
			if n := len(m.devices(v)); n != 1 {
				t.Fatalf("the image has %d devices", n)
			}
			// The previous node does not detach the new node's device.
			must(t, m.Unstage(t.Context(), v.VolumeID, v.staging))
			end()
			deadline := time.Now().Add(time.Minute)
			for err := other.stage(w); err != nil; err = other.stage(w) {
				if !errors.Is(err, volume.ErrInUse) || time.Now().After(deadline) {
					t.Fatal(err)
				}
			}
			must(t, m.Unstage(t.Context(), v.VolumeID, v.staging))
			must(t, other.publish(w))
			other.wantContent(w, "precious")
			other.write(w, "more")
			other.down(w)
		})
	}
}

// hide makes the mounts of a volume invisible and keeps its filesystem mounted, as
// another node's mount namespace does. The result ends that. A mount namespace created
// for it would pin the mounts of all other tests too.
func hide(t *testing.T, v vol) (end func()) {
	t.Helper()
	kept, err := unix.OpenTree(unix.AT_FDCWD, v.staging, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	must(t, err)
	end = sync.OnceFunc(func() { must(t, unix.Close(kept)) })
	t.Cleanup(end)
	must(t, disk.Unmount(v.target))
	must(t, disk.Unmount(v.staging))
	return end
}

// A dead node leaves a raw device that nothing has open.
func TestDeviceLeftByADeadNodeIsDetached(t *testing.T) {
	t.Parallel()
	m, other := twoNodes(t)
	v := m.attach(m.create("v", "", 20*mib, nil), "n1", false)
	m.up(v)
	m.write(v, "precious")
	must(t, disk.Unmount(v.target)) // with the node
	left := m.devices(v)
	m.detach(v, "n1")
	w := m.attach(v, "n2", true).on(other)
	other.up(w)
	other.wantContent(w, "precious")
	if now := m.devices(v); len(left) != 1 || len(now) != 1 {
		t.Errorf("first the devices %v, then %v", left, now)
	}
	// The previous node unstages late and does not detach the new node's device.
	must(t, m.Unstage(t.Context(), v.VolumeID, v.staging))
	if n := len(m.devices(w)); n != 1 {
		t.Fatalf("the image has %d devices", n)
	}
	other.down(w)
}

func TestDeviceOpenOnAnotherNodeBlocksStaging(t *testing.T) {
	t.Parallel()
	m, other := twoNodes(t)
	v := m.attach(m.create("v", "", 20*mib, nil), "n1", false)
	m.up(v)
	f, err := os.Open(m.devices(v)[0].Path)
	must(t, err)
	must(t, disk.Unmount(v.target))
	m.detach(v, "n1")
	w := m.attach(v, "n2", false).on(other)
	wantErr(t, other.stage(w), volume.ErrInUse)
	must(t, f.Close())
	other.up(w)
	other.down(w)
}

// A bound device may be in use on a node whose mounts the controller does not see.
func TestRawDeviceInUseOnAnotherNodeIsNotCopied(t *testing.T) {
	t.Parallel()
	m, other := twoNodes(t)
	v := m.attach(m.create("v", "", 20*mib, nil), "n2", false).on(other)
	must(t, other.stage(v))
	_, err := m.Store.CreateSnapshot(t.Context(), "s", v.VolumeID)
	if !reflinks(t, m) {
		wantErr(t, err, volume.ErrInUse)
	}
	must(t, other.Unstage(t.Context(), v.VolumeID, v.staging))
	_, err = m.Store.CreateSnapshot(t.Context(), "s", v.VolumeID)
	must(t, err)
}

func reflinks(t *testing.T, m *machine) bool {
	t.Helper()
	file := filepath.Join(m.dir, "shared")
	must(t, os.WriteFile(file, []byte("x"), 0o600))
	shared, err := disk.Copy(file+"2", file, true)
	must(t, err)
	return shared
}
