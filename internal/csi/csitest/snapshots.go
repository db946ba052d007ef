package csitest

import (
	"context"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

func (d controller) CreateSnapshot(_ context.Context, req *csipb.CreateSnapshotRequest) (*csipb.CreateSnapshotResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := checkName(req.GetName()); err != nil {
		return nil, err
	}
	if req.GetSourceVolumeId() == "" {
		return nil, errMissing("source_volume_id")
	}
	snap := d.state.snapshotNames[req.GetName()]
	if snap == nil {
		source, err := d.findVolume(req.GetSourceVolumeId())
		if err != nil {
			return nil, err
		}
		snap = d.state.createSnapshot(req.GetName(), source)
	}
	if snap.info.GetSourceVolumeId() != req.GetSourceVolumeId() {
		return nil, status.Errorf(codes.AlreadyExists, "snapshot %q exists and is of volume %q", req.GetName(), snap.info.GetSourceVolumeId())
	}
	return &csipb.CreateSnapshotResponse{Snapshot: d.snapshotResponse(snap)}, nil
}

func (d controller) DeleteSnapshot(_ context.Context, req *csipb.DeleteSnapshotRequest) (*csipb.DeleteSnapshotResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if req.GetSnapshotId() == "" {
		return nil, errMissing("snapshot_id")
	}
	snap := d.state.snapshots[req.GetSnapshotId()]
	if group := snap.group(); group != "" {
		return nil, status.Errorf(codes.InvalidArgument, "the snapshot can only be deleted with its group %q", group)
	}
	if snap != nil {
		d.state.removeSnapshot(snap)
	}
	return &csipb.DeleteSnapshotResponse{}, nil
}

func (d controller) GetSnapshot(_ context.Context, req *csipb.GetSnapshotRequest) (*csipb.GetSnapshotResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if req.GetSnapshotId() == "" {
		return nil, errMissing("snapshot_id")
	}
	snap := d.state.snapshots[req.GetSnapshotId()]
	if snap == nil {
		return nil, status.Errorf(codes.NotFound, "there is no snapshot %q", req.GetSnapshotId())
	}
	return &csipb.GetSnapshotResponse{Snapshot: d.snapshotResponse(snap)}, nil
}

// group is the id of the snapshot's group, if it has one.
func (s *snapshot) group() string {
	if s == nil {
		return ""
	}
	return s.info.GetGroupSnapshotId()
}

// snapshotResponse is a response about a snapshot. It counts the responses, after
// some of which the snapshot is ready.
func (d *Driver) snapshotResponse(snap *snapshot) *csipb.Snapshot {
	info := proto.CloneOf(snap.info)
	info.ReadyToUse = snap.reports >= d.opts.SnapshotReadyAfter
	snap.reports++
	return info
}
