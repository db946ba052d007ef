package csi

import (
	"context"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
)

// ControllerPublishVolume attaches a volume to a node and returns the publish
// context for the node service ("ControllerPublishVolume", capability
// PUBLISH_UNPUBLISH_VOLUME). It waits for other calls about the volume, on
// whichever node.
func (d *Driver) ControllerPublishVolume(ctx context.Context, req *csipb.ControllerPublishVolumeRequest) (map[string]string, error) {
	resp, err := send(ctx, d, operation{ControllerPublishVolume, volumeID(req.GetVolumeId())}, d.controller.ControllerPublishVolume, req)
	if err != nil {
		return nil, err
	}
	return resp.GetPublishContext(), nil
}

// NodeGetInfo reads the id, the volume limit and the topology of the node that
// serves this socket ("NodeGetInfo"). A node without an id is an [InvalidResponse].
func (d *Driver) NodeGetInfo(ctx context.Context) (*csipb.NodeGetInfoResponse, error) {
	resp, err := send(ctx, d, operation{method: NodeGetInfo}, d.node.NodeGetInfo, &csipb.NodeGetInfoRequest{})
	if err != nil {
		return nil, err
	}
	if resp.GetNodeId() == "" {
		return nil, d.invalidResponse(NodeGetInfo, "", "the node has no id")
	}
	return resp, nil
}
