package sidecar

import (
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"google.golang.org/grpc/codes"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/internal/kube"
)

// A user may delete pre-provisioned contents of a group's snapshots before the driver was asked
// about them. It is unknown then that they cannot be deleted alone.
func TestAGroupMemberDoesNotBlockItsContent(t *testing.T) {
	tests := map[string]struct {
		grouped bool
		refuse  codes.Code // OK for what the driver says of itself
		gone    bool
	}{
		"a group member is deleted with the group":                 {grouped: true, gone: true},
		"a deletion rejected for another reason keeps the content": {refuse: codes.InvalidArgument},
		"a group member whose deletion failed with another code":   {grouped: true, refuse: codes.Internal},
		"a snapshot without a group is deleted":                    {gone: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			server, connection := startDriver(t)
			handle := createSnapshot(t, connection, tt.grouped)
			if tt.refuse != codes.OK {
				server.FailNext(csi.DeleteSnapshot, tt.refuse, "no")
			}
			c := newContent()
			deleting(c)
			preProvisioned(c)
			c.Spec.Source.SnapshotHandle = &handle
			r := reconciler()
			r.driver, r.client = connection, fakeClient(t, c)
			r.apiReader, r.events = r.client, kube.NewEventsWithRecorder(record.NewFakeRecorder(10))
			_, err := queue{r, true}.Reconcile(t.Context(), reconcile.Request{NamespacedName: types.NamespacedName{Name: c.Name}})
			if (err == nil) != tt.gone {
				t.Errorf("the error is %v", err)
			}
			left := r.client.Get(t.Context(), client.ObjectKeyFromObject(c), &snapshotv1.VolumeSnapshotContent{})
			if apierrors.IsNotFound(left) != tt.gone {
				t.Errorf("the content is read with %v", left)
			}
			if n := len(server.Snapshots()); (n == 0) != (tt.gone && !tt.grouped) {
				t.Errorf("%d snapshots are left at the driver", n)
			}
		})
	}
}

// createSnapshot creates a snapshot, or a group with one member, at the driver. It returns the
// handle of the snapshot.
func createSnapshot(t *testing.T, connection *csi.Driver, grouped bool) string {
	t.Helper()
	volume := createVolume(t, connection)
	if !grouped {
		made, err := connection.CreateSnapshot(t.Context(), &csipb.CreateSnapshotRequest{Name: "s", SourceVolumeId: volume})
		if err != nil {
			t.Fatal(err)
		}
		return made.GetSnapshotId()
	}
	made, err := connection.CreateVolumeGroupSnapshot(t.Context(), &csipb.CreateVolumeGroupSnapshotRequest{Name: "g", SourceVolumeIds: []string{volume}})
	if err != nil {
		t.Fatal(err)
	}
	return made.GetSnapshots()[0].GetSnapshotId()
}

func createVolume(t *testing.T, connection *csi.Driver) string {
	t.Helper()
	volume, err := connection.CreateVolume(t.Context(), &csipb.CreateVolumeRequest{
		Name: "v", VolumeCapabilities: []*csipb.VolumeCapability{{
			AccessType: &csipb.VolumeCapability_Mount{Mount: &csipb.VolumeCapability_MountVolume{}},
			AccessMode: &csipb.VolumeCapability_AccessMode{Mode: csipb.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return volume.GetVolumeId()
}

// startDriver starts a driver with all capabilities.
func startDriver(t *testing.T) (*csitest.Driver, *csi.Driver) {
	t.Helper()
	server := csitest.New(csitest.Options{Name: driver})
	connection, err := csi.Connect(t.Context(), csi.Options{Address: server.Serve(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	if _, err := connection.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	return server, connection
}
