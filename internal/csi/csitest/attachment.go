package csitest

import (
	"context"
	"slices"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

func (d controller) ControllerPublishVolume(_ context.Context, req *csipb.ControllerPublishVolumeRequest) (*csipb.ControllerPublishVolumeResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.checkPublish(req); err != nil {
		return nil, err
	}
	v, err := d.findVolume(req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if !d.hasNode(req.GetNodeId()) {
		return nil, status.Errorf(codes.NotFound, "there is no node %q", req.GetNodeId())
	}
	requested := publication{readonly: req.GetReadonly(), mode: proto.CloneOf(req.GetVolumeCapability())}
	if there, ok := v.published[req.GetNodeId()]; ok {
		if there.readonly != requested.readonly || !proto.Equal(there.mode, requested.mode) {
			return nil, status.Errorf(codes.AlreadyExists, "volume %q is published on the node with another mode", req.GetVolumeId())
		}
		return published(v), nil
	}
	if err := d.checkOtherPublications(req.GetNodeId(), v, requested); err != nil {
		return nil, err
	}
	v.published[req.GetNodeId()] = requested
	return published(v), nil
}

func (d controller) checkPublish(req *csipb.ControllerPublishVolumeRequest) error {
	switch {
	case req.GetVolumeId() == "":
		return errMissing("volume_id")
	case req.GetNodeId() == "":
		return errMissing("node_id")
	case req.GetVolumeCapability() == nil:
		return errMissing("volume_capability")
	case req.GetReadonly() && !d.can(csipb.ControllerServiceCapability_RPC_PUBLISH_READONLY):
		return status.Error(codes.InvalidArgument, "volumes cannot be published read-only")
	default:
		return checkCapabilities(req.GetVolumeCapability())
	}
}

// checkOtherPublications checks the other nodes of the volume and the other volumes
// of the node.
func (d controller) checkOtherPublications(node string, v *volume, requested publication) error {
	for other, there := range v.published {
		if isSingleNode(requested.mode) || isSingleNode(there.mode) {
			return status.Errorf(codes.FailedPrecondition, "volume %q is published on node %q", v.info.GetVolumeId(), other)
		}
	}
	if d.opts.MaxVolumesPerNode == 0 {
		return nil
	}
	var there int64
	for _, other := range d.state.volumes {
		if _, ok := other.published[node]; ok {
			there++
		}
	}
	if there >= d.opts.MaxVolumesPerNode {
		return status.Errorf(codes.ResourceExhausted, "node %q has the maximum number of volumes", node)
	}
	return nil
}

func (d controller) ControllerUnpublishVolume(_ context.Context, req *csipb.ControllerUnpublishVolumeRequest) (*csipb.ControllerUnpublishVolumeResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if req.GetVolumeId() == "" {
		return nil, errMissing("volume_id")
	}
	if v := d.state.volumes[req.GetVolumeId()]; v != nil {
		if req.GetNodeId() == "" {
			clear(v.published)
		}
		delete(v.published, req.GetNodeId())
	}
	return &csipb.ControllerUnpublishVolumeResponse{}, nil
}

func (d *Driver) hasNode(id string) bool {
	return d.opts.AnyNode || id == d.opts.NodeID || slices.Contains(d.opts.Nodes, id)
}

func published(v *volume) *csipb.ControllerPublishVolumeResponse {
	return &csipb.ControllerPublishVolumeResponse{PublishContext: map[string]string{"device": "/dev/" + v.info.GetVolumeId()}}
}

func isSingleNode(mode *csipb.VolumeCapability) bool {
	switch mode.GetAccessMode().GetMode() {
	case csipb.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER,
		csipb.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY,
		csipb.VolumeCapability_AccessMode_MULTI_NODE_SINGLE_WRITER:
		return false
	default:
		return true
	}
}
