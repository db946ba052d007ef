package local

import (
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
)

// The driver's pod is drained and starts on another node, where its directory is
// empty. A delete call there must not be answered as if the volume were deleted.
func TestDriverOnAnotherNodeRejectsForeignIDs(t *testing.T) {
	first := serveIn(t)
	v, err := first.CreateVolume(t.Context(), &csi.CreateVolumeRequest{Name: "v", VolumeCapabilities: []*csi.VolumeCapability{rawCapability()}})
	must(t, err)
	id := v.GetVolume().GetVolumeId()
	s, err := first.CreateSnapshot(t.Context(), &csi.CreateSnapshotRequest{Name: "s", SourceVolumeId: id})
	must(t, err)
	snapshot := s.GetSnapshot().GetSnapshotId()
	group, members := "grp"+strings.TrimPrefix(id, "vol"), []string{snapshot}

	second := serveIn(t, func(o *Options) { o.NodeID = "n2" })
	calls := map[string]struct {
		call func() error
		want codes.Code
	}{
		"deleting the volume": {func() error {
			_, err := second.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: id})
			return err
		}, codes.FailedPrecondition},
		"deleting the snapshot": {func() error {
			_, err := second.DeleteSnapshot(t.Context(), &csi.DeleteSnapshotRequest{SnapshotId: snapshot})
			return err
		}, codes.FailedPrecondition},
		"deleting a group": {func() error {
			_, err := second.DeleteVolumeGroupSnapshot(t.Context(), &csi.DeleteVolumeGroupSnapshotRequest{GroupSnapshotId: group, SnapshotIds: members})
			return err
		}, codes.FailedPrecondition},
		"getting the volume": {func() error {
			_, err := second.ControllerGetVolume(t.Context(), &csi.ControllerGetVolumeRequest{VolumeId: id})
			return err
		}, codes.FailedPrecondition},
		"listing the snapshot": {func() error {
			_, err := second.ListSnapshots(t.Context(), &csi.ListSnapshotsRequest{SnapshotId: snapshot})
			return err
		}, codes.FailedPrecondition},
		"expanding the volume": {func() error {
			_, err := second.ControllerExpandVolume(t.Context(), &csi.ControllerExpandVolumeRequest{VolumeId: id, CapacityRange: &csi.CapacityRange{RequiredBytes: 2 << 30}})
			return err
		}, codes.FailedPrecondition},
		"a snapshot that the first may have taken": {func() error {
			_, err := second.CreateSnapshot(t.Context(), &csi.CreateSnapshotRequest{Name: "s", SourceVolumeId: id})
			return err
		}, codes.Unavailable},
		"a volume from a snapshot that is not there": {func() error {
			_, err := second.CreateVolume(t.Context(), &csi.CreateVolumeRequest{Name: "restored", VolumeCapabilities: []*csi.VolumeCapability{rawCapability()},
				VolumeContentSource: &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: snapshot}}}})
			return err
		}, codes.ResourceExhausted},
	}
	for name, tt := range calls {
		t.Run(name, func(t *testing.T) {
			err := tt.call()
			wantCode(t, err, tt.want)
			if err != nil && !strings.Contains(err.Error(), "run on node n1") {
				t.Errorf("it does not say who has it: %v", err)
			}
		})
	}
	// Back on its node the driver has everything, and deletes it.
	_, err = first.DeleteSnapshot(t.Context(), &csi.DeleteSnapshotRequest{SnapshotId: snapshot})
	must(t, err)
	_, err = first.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: id})
	must(t, err)
}
