package csi

import (
	"context"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
)

// ControllerPublishVolume makes a volume available on a node and returns the
// publish context that the node side needs ("ControllerPublishVolume",
// capability PUBLISH_UNPUBLISH_VOLUME). It waits for other calls about the
// volume, on whichever node.
func (d *Driver) ControllerPublishVolume(ctx context.Context, req *csipb.ControllerPublishVolumeRequest) (map[string]string, error) {
	resp, err := send(ctx, d, operation{ControllerPublishVolume, volumeID(req.GetVolumeId())}, d.controller.ControllerPublishVolume, req)
	if err != nil {
		return nil, err
	}
	return resp.GetPublishContext(), nil
}

// NodeGetInfo asks the node behind this socket for its id, its limit of volumes
// and its place ("NodeGetInfo"). A node without an id is a [InvalidResponse].
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
