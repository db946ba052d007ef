package local

import (
	"context"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-io/holdfast/driver/local/stage"
)

// node implements the node service. It needs root for everything but NodeGetInfo and
// NodeGetCapabilities.
type node struct {
	csi.UnimplementedNodeServer
	options *Options
	stager  *stage.Stager
}

func (n *node) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	return &csi.NodeGetCapabilitiesResponse{Capabilities: n.options.nodeCapabilities()}, nil
}

func (n *node) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{
		NodeId:             n.options.NodeID,
		MaxVolumesPerNode:  n.options.MaxVolumes,
		AccessibleTopology: n.options.topology(),
	}, nil
}

func (n *node) NodeStageVolume(ctx context.Context, r *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	if err := required("volume_id", r.GetVolumeId(), "staging_target_path", r.GetStagingTargetPath()); err != nil {
		return nil, err
	}
	u, err := useOf(r.GetVolumeCapability())
	if err != nil {
		return nil, err
	}
	if err := n.stager.Stage(ctx, u.forRequest(r), r.GetStagingTargetPath(), u.flags); err != nil {
		return nil, err
	}
	return &csi.NodeStageVolumeResponse{}, nil
}

// useRequest is a request to use a volume.
type useRequest interface {
	GetVolumeId() string
	GetPublishContext() map[string]string
}

func (u use) forRequest(r useRequest) stage.Use {
	return stage.Use{VolumeID: r.GetVolumeId(), Block: u.block, FSType: u.fsType, Token: r.GetPublishContext()[tokenKey]}
}

func (n *node) NodeUnstageVolume(ctx context.Context, r *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	if err := required("volume_id", r.GetVolumeId(), "staging_target_path", r.GetStagingTargetPath()); err != nil {
		return nil, err
	}
	if err := n.stager.Unstage(ctx, r.GetVolumeId(), r.GetStagingTargetPath()); err != nil {
		return nil, err
	}
	return &csi.NodeUnstageVolumeResponse{}, nil
}

func (n *node) NodePublishVolume(ctx context.Context, r *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	if err := required("volume_id", r.GetVolumeId(), "target_path", r.GetTargetPath()); err != nil {
		return nil, err
	}
	u, err := useOf(r.GetVolumeCapability())
	if err != nil {
		return nil, err
	}
	if r.GetStagingTargetPath() == "" {
		return nil, errNoStaging
	}
	err = n.stager.Publish(ctx, stage.Publication{
		Use:       u.forRequest(r),
		Staging:   r.GetStagingTargetPath(),
		Target:    r.GetTargetPath(),
		ReadOnly:  r.GetReadonly() || u.readOnly,
		Exclusive: u.exclusive,
	})
	if err != nil {
		return nil, err
	}
	return &csi.NodePublishVolumeResponse{}, nil
}

func (n *node) NodeUnpublishVolume(ctx context.Context, r *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	if err := required("volume_id", r.GetVolumeId(), "target_path", r.GetTargetPath()); err != nil {
		return nil, err
	}
	if err := n.stager.Unpublish(ctx, r.GetVolumeId(), r.GetTargetPath()); err != nil {
		return nil, err
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

func (n *node) NodeExpandVolume(ctx context.Context, r *csi.NodeExpandVolumeRequest) (*csi.NodeExpandVolumeResponse, error) {
	if err := required("volume_id", r.GetVolumeId(), "volume_path", r.GetVolumePath()); err != nil {
		return nil, err
	}
	size, err := n.stager.Expand(ctx, r.GetVolumeId(), r.GetVolumePath(), r.GetCapacityRange().GetRequiredBytes())
	if err != nil {
		return nil, err
	}
	return &csi.NodeExpandVolumeResponse{CapacityBytes: size}, nil
}

func (n *node) NodeGetVolumeStats(_ context.Context, r *csi.NodeGetVolumeStatsRequest) (*csi.NodeGetVolumeStatsResponse, error) {
	if err := required("volume_id", r.GetVolumeId(), "volume_path", r.GetVolumePath()); err != nil {
		return nil, err
	}
	s, err := n.stager.Stats(r.GetVolumeId(), r.GetVolumePath())
	if err != nil {
		return nil, err
	}
	if s.Block {
		return &csi.NodeGetVolumeStatsResponse{Usage: []*csi.VolumeUsage{{Unit: csi.VolumeUsage_BYTES, Total: s.Bytes}}}, nil
	}
	return &csi.NodeGetVolumeStatsResponse{Usage: []*csi.VolumeUsage{
		{Unit: csi.VolumeUsage_BYTES, Total: s.Bytes, Used: s.Bytes - s.BytesFree, Available: s.BytesAvailable},
		{Unit: csi.VolumeUsage_INODES, Total: s.Inodes, Used: s.Inodes - s.InodesFree, Available: s.InodesFree},
	}}, nil
}
