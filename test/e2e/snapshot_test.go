package e2e

import (
	"testing"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/test/world"
)

// newSnapshotWorld is a world with a bound claim, data, a class of snapshots, and
// both halves at work.
func newSnapshotWorld(t *testing.T, o csitest.Options) (*world.World, client.Client) {
	t.Helper()
	o.Record = true
	w := world.New(t, o)
	api := w.Snapshots(t)
	w.Provisioner(t)
	w.SnapshotController(t)
	w.Snapshotter(t)
	w.Class(t, nil)
	w.SnapshotClass(t, api, nil)
	w.Claim(t, "data", nil)
	w.Bound(t, "data")
	return w, api
}

func TestASnapshotIsMadeAndDeleted(t *testing.T) {
	t.Parallel()
	w, api := newSnapshotWorld(t, csitest.Options{})
	made := w.Snapshot(t, api, "one", "data", nil)
	s := w.SnapshotReady(t, api, "one")
	content := &snapshotv1.VolumeSnapshotContent{}
	if err := api.Get(t.Context(), client.ObjectKey{Name: "snapcontent-" + string(made.UID)}, content); err != nil {
		t.Fatal(err)
	}
	there := w.Driver.Snapshots()
	if len(there) != 1 || there[0].ID != ptr.Deref(content.Status.SnapshotHandle, "") {
		t.Fatalf("the driver has %+v, the content says %+v", there, content.Status)
	}
	if s.Status.CreationTime.Year() < 2000 || s.Status.RestoreSize.Value() != 1<<30 || s.Status.Error != nil {
		t.Errorf("the status is %+v", s.Status)
	}
	if n := w.Driver.Calls(csi.CreateSnapshot); n != 1 {
		t.Errorf("the driver was asked %d times", n)
	}
	w.DropSnapshot(t, api, "one")
	w.SnapshotGone(t, api, "one")
	w.NoSnapshotsLeft(t, api)
	w.DropClaim(t, "data")
	w.NothingLeft(t)
}
