package local

import (
	"context"
	"errors"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-io/holdfast/driver/local/volume"
)

// tokenKey is the only key of a publish context. Its value identifies a publication: a
// node with the value of an earlier one is rejected.
const tokenKey = "publication"

func (c *controller) ControllerPublishVolume(ctx context.Context, r *csi.ControllerPublishVolumeRequest) (*csi.ControllerPublishVolumeResponse, error) {
	if !c.options.Attach {
		return c.UnimplementedControllerServer.ControllerPublishVolume(ctx, r)
	}
	if err := required("volume_id", r.GetVolumeId(), "node_id", r.GetNodeId()); err != nil {
		return nil, err
	}
	u, err := useOf(r.GetVolumeCapability())
	if err != nil {
		return nil, err
	}
	v, err := c.store.Volume(r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if err := u.checkAccess(v); err != nil {
		return nil, err
	}
	a, err := c.store.Attach(ctx, v.ID, volume.Attachment{
		Node: r.GetNodeId(), ReadOnly: r.GetReadonly(), Block: u.block, FSType: u.fsType, Mode: u.mode.String(),
	})
	if err != nil {
		return nil, err
	}
	return &csi.ControllerPublishVolumeResponse{PublishContext: map[string]string{tokenKey: a.Token}}, nil
}

// ControllerUnpublishVolume succeeds for volumes and nodes that do not exist (CSI
// spec: such a volume is regarded as unpublished).
func (c *controller) ControllerUnpublishVolume(ctx context.Context, r *csi.ControllerUnpublishVolumeRequest) (*csi.ControllerUnpublishVolumeResponse, error) {
	if !c.options.Attach {
		return c.UnimplementedControllerServer.ControllerUnpublishVolume(ctx, r)
	}
	if err := required("volume_id", r.GetVolumeId()); err != nil {
		return nil, err
	}
	if err := c.store.Detach(ctx, r.GetVolumeId(), r.GetNodeId()); err != nil {
		return nil, err
	}
	return &csi.ControllerUnpublishVolumeResponse{}, nil
}

// publishedNodes returns no node for a volume with a damaged attachment record. Calls
// that need the record report the damage, and listing continues.
func (c *controller) publishedNodes(id string) ([]string, error) {
	a, err := c.store.Attached(id)
	if errors.Is(err, volume.ErrDamaged) || a == nil && err == nil {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return []string{a.Node}, nil
}
