package csitest

import (
	"context"
	"errors"
	"maps"
	"os"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// node is the node service. It mounts nothing: a published volume is an empty
// directory, or an empty file for a block volume.
type node struct {
	csipb.UnimplementedNodeServer
	*Driver
}

type nodeState struct {
	staged  map[string]string // volume id to staging path
	targets map[string]target // by path
}

type target struct {
	volume string
	mode   *csipb.VolumeCapability
}

func (d node) NodeGetCapabilities(context.Context, *csipb.NodeGetCapabilitiesRequest) (*csipb.NodeGetCapabilitiesResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	resp := &csipb.NodeGetCapabilitiesResponse{}
	for _, t := range d.opts.Node {
		resp.Capabilities = append(resp.Capabilities, &csipb.NodeServiceCapability{
			Type: &csipb.NodeServiceCapability_Rpc{Rpc: &csipb.NodeServiceCapability_RPC{Type: t}},
		})
	}
	return resp, nil
}

func (d node) NodeGetInfo(context.Context, *csipb.NodeGetInfoRequest) (*csipb.NodeGetInfoResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	resp := &csipb.NodeGetInfoResponse{NodeId: d.opts.NodeID, MaxVolumesPerNode: d.opts.MaxVolumesPerNode}
	if len(d.opts.Segments) > 0 {
		resp.AccessibleTopology = &csipb.Topology{Segments: maps.Clone(d.opts.Segments[0])}
	}
	return resp, nil
}

func (d node) NodeStageVolume(_ context.Context, req *csipb.NodeStageVolumeRequest) (*csipb.NodeStageVolumeResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if req.GetVolumeId() != "" && req.GetStagingTargetPath() == "" {
		return nil, errMissing("staging_target_path")
	}
	if _, err := d.findVolume(req.GetVolumeId()); err != nil {
		return nil, err
	}
	if req.GetVolumeCapability() == nil {
		return nil, errMissing("volume_capability")
	}
	d.state.node.staged[req.GetVolumeId()] = req.GetStagingTargetPath()
	return &csipb.NodeStageVolumeResponse{}, nil
}

func (d node) NodeUnstageVolume(_ context.Context, req *csipb.NodeUnstageVolumeRequest) (*csipb.NodeUnstageVolumeResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if req.GetVolumeId() == "" {
		return nil, errMissing("volume_id")
	}
	if req.GetStagingTargetPath() == "" {
		return nil, errMissing("staging_target_path")
	}
	delete(d.state.node.staged, req.GetVolumeId())
	return &csipb.NodeUnstageVolumeResponse{}, nil
}

func (d node) NodePublishVolume(_ context.Context, req *csipb.NodePublishVolumeRequest) (*csipb.NodePublishVolumeResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.checkNodePublish(req); err != nil {
		return nil, err
	}
	at := d.state.node.targets
	wanted := target{volume: req.GetVolumeId(), mode: proto.CloneOf(req.GetVolumeCapability())}
	if there, ok := at[req.GetTargetPath()]; ok {
		if there.volume != wanted.volume || !proto.Equal(there.mode, wanted.mode) {
			return nil, status.Errorf(codes.AlreadyExists, "another volume or mode is published at %s", req.GetTargetPath())
		}
		return &csipb.NodePublishVolumeResponse{}, nil
	}
	for path, there := range at {
		if there.volume == wanted.volume && wanted.mode.GetAccessMode().GetMode() == csipb.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER {
			return nil, status.Errorf(codes.FailedPrecondition, "the volume is published at %s for a single writer", path)
		}
	}
	if err := createTarget(req.GetTargetPath(), wanted.mode.GetBlock() != nil); err != nil {
		return nil, status.Errorf(codes.Internal, "creating the target: %v", err)
	}
	at[req.GetTargetPath()] = wanted
	return &csipb.NodePublishVolumeResponse{}, nil
}

func (d node) checkNodePublish(req *csipb.NodePublishVolumeRequest) error {
	switch {
	case req.GetVolumeId() == "":
		return errMissing("volume_id")
	case req.GetTargetPath() == "":
		return errMissing("target_path")
	case req.GetVolumeCapability() == nil:
		return errMissing("volume_capability")
	}
	if _, err := d.findVolume(req.GetVolumeId()); err != nil {
		return err
	}
	if staged := d.state.node.staged[req.GetVolumeId()]; d.canNode(csipb.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME) &&
		(staged == "" || staged != req.GetStagingTargetPath()) {
		return status.Errorf(codes.FailedPrecondition, "volume %q is not staged at %q", req.GetVolumeId(), req.GetStagingTargetPath())
	}
	return nil
}

func (d node) NodeUnpublishVolume(_ context.Context, req *csipb.NodeUnpublishVolumeRequest) (*csipb.NodeUnpublishVolumeResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if req.GetVolumeId() == "" {
		return nil, errMissing("volume_id")
	}
	if req.GetTargetPath() == "" {
		return nil, errMissing("target_path")
	}
	if d.state.node.targets[req.GetTargetPath()].volume == req.GetVolumeId() {
		if err := os.Remove(req.GetTargetPath()); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, status.Errorf(codes.Internal, "removing the target: %v", err)
		}
		delete(d.state.node.targets, req.GetTargetPath())
	}
	return &csipb.NodeUnpublishVolumeResponse{}, nil
}

func (d node) NodeGetVolumeStats(_ context.Context, req *csipb.NodeGetVolumeStatsRequest) (*csipb.NodeGetVolumeStatsResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v, err := d.findVolumeAt(req.GetVolumeId(), req.GetVolumePath())
	if err != nil {
		return nil, err
	}
	size := v.info.GetCapacityBytes()
	return &csipb.NodeGetVolumeStatsResponse{Usage: []*csipb.VolumeUsage{{Unit: csipb.VolumeUsage_BYTES, Total: size, Available: size}}}, nil
}

func (d node) NodeExpandVolume(_ context.Context, req *csipb.NodeExpandVolumeRequest) (*csipb.NodeExpandVolumeResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v, err := d.findVolumeAt(req.GetVolumeId(), req.GetVolumePath())
	if err != nil {
		return nil, err
	}
	return &csipb.NodeExpandVolumeResponse{CapacityBytes: v.info.GetCapacityBytes()}, nil
}

// findVolumeAt returns a volume that must be published or staged at the path.
func (d node) findVolumeAt(id, path string) (*volume, error) {
	if path == "" {
		return nil, errMissing("volume_path")
	}
	v, err := d.findVolume(id)
	if err != nil {
		return nil, err
	}
	if d.state.node.targets[path].volume != id && d.state.node.staged[id] != path {
		return nil, status.Errorf(codes.NotFound, "volume %q is not at %q", id, path)
	}
	return v, nil
}

func createTarget(path string, block bool) error {
	if !block {
		return os.MkdirAll(path, 0o755)
	}
	f, err := os.OpenFile(path, os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}
