package local

import (
	"context"
	"errors"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/holdfast-io/holdfast/driver/local/volume"
)

func (c *controller) CreateSnapshot(ctx context.Context, r *csi.CreateSnapshotRequest) (*csi.CreateSnapshotResponse, error) {
	if err := required("name", r.GetName(), "source_volume_id", r.GetSourceVolumeId()); err != nil {
		return nil, err
	}
	if err := c.options.checkParameters(r.GetParameters()); err != nil {
		return nil, err
	}
	s, err := c.store.CreateSnapshot(ctx, r.GetName(), r.GetSourceVolumeId())
	if err != nil {
		return nil, err
	}
	return &csi.CreateSnapshotResponse{Snapshot: toCSISnapshot(s)}, nil
}

// toCSISnapshot converts a record. A damaged one has no creation time and is not ready
// to use.
func toCSISnapshot(s volume.Snapshot) *csi.Snapshot {
	return &csi.Snapshot{
		SnapshotId:     s.ID,
		SourceVolumeId: s.VolumeID,
		SizeBytes:      s.Size,
		CreationTime:   timestamppb.New(s.Created),
		ReadyToUse:     !s.Created.IsZero(),
		// Members of a group are not deleted individually.
		GroupSnapshotId: s.GroupID,
	}
}

func (c *controller) DeleteSnapshot(ctx context.Context, r *csi.DeleteSnapshotRequest) (*csi.DeleteSnapshotResponse, error) {
	if err := required("snapshot_id", r.GetSnapshotId()); err != nil {
		return nil, err
	}
	if err := c.store.DeleteSnapshot(ctx, r.GetSnapshotId()); err != nil {
		return nil, err
	}
	return &csi.DeleteSnapshotResponse{}, nil
}

func (c *controller) GetSnapshot(_ context.Context, r *csi.GetSnapshotRequest) (*csi.GetSnapshotResponse, error) {
	if err := required("snapshot_id", r.GetSnapshotId()); err != nil {
		return nil, err
	}
	s, err := c.store.Snapshot(r.GetSnapshotId())
	if err != nil {
		return nil, err
	}
	return &csi.GetSnapshotResponse{Snapshot: toCSISnapshot(s)}, nil
}

func (c *controller) ListSnapshots(_ context.Context, r *csi.ListSnapshotsRequest) (*csi.ListSnapshotsResponse, error) {
	if err := checkPage(r.GetMaxEntries(), r.GetStartingToken()); err != nil {
		return nil, err
	}
	snapshots, more, err := c.filterSnapshots(r)
	if err != nil {
		return nil, err
	}
	out := &csi.ListSnapshotsResponse{}
	for _, s := range snapshots {
		out.Entries = append(out.Entries, &csi.ListSnapshotsResponse_Entry{Snapshot: toCSISnapshot(s)})
	}
	if more {
		out.NextToken = snapshots[len(snapshots)-1].ID
	}
	return out, nil
}

// filterSnapshots returns the snapshots that match the filters of r. No match is not
// an error.
func (c *controller) filterSnapshots(r *csi.ListSnapshotsRequest) ([]volume.Snapshot, bool, error) {
	if r.GetSnapshotId() == "" {
		return c.store.Snapshots(r.GetSourceVolumeId(), r.GetStartingToken(), int(r.GetMaxEntries()))
	}
	s, err := c.store.Snapshot(r.GetSnapshotId())
	if errors.Is(err, volume.ErrNotFound) && !errors.Is(err, volume.ErrOtherStorage) {
		return nil, false, nil
	}
	if r.GetSourceVolumeId() != "" && s.VolumeID != r.GetSourceVolumeId() {
		return nil, false, err
	}
	return []volume.Snapshot{s}, false, err
}
