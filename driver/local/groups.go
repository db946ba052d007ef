package local

import (
	"context"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/holdfast-io/holdfast/driver/local/volume"
)

// groupController takes snapshots of several volumes at one point in time.
type groupController struct {
	csi.UnimplementedGroupControllerServer
	options *Options
	store   *volume.Store
}

func (c *groupController) GroupControllerGetCapabilities(context.Context, *csi.GroupControllerGetCapabilitiesRequest) (*csi.GroupControllerGetCapabilitiesResponse, error) {
	return &csi.GroupControllerGetCapabilitiesResponse{Capabilities: []*csi.GroupControllerServiceCapability{{
		Type: &csi.GroupControllerServiceCapability_Rpc{Rpc: &csi.GroupControllerServiceCapability_RPC{
			Type: csi.GroupControllerServiceCapability_RPC_CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT}},
	}}}, nil
}

func (c *groupController) CreateVolumeGroupSnapshot(ctx context.Context, r *csi.CreateVolumeGroupSnapshotRequest) (*csi.CreateVolumeGroupSnapshotResponse, error) {
	if err := required("name", r.GetName()); err != nil {
		return nil, err
	}
	if err := c.options.checkParameters(r.GetParameters()); err != nil {
		return nil, err
	}
	g, err := c.store.CreateGroup(ctx, r.GetName(), r.GetSourceVolumeIds())
	if err != nil {
		return nil, err
	}
	return &csi.CreateVolumeGroupSnapshotResponse{GroupSnapshot: c.toCSIGroup(g)}, nil
}

// toCSIGroup converts a record. A group with a damaged member is not ready to use.
func (c *groupController) toCSIGroup(g volume.Group) *csi.VolumeGroupSnapshot {
	out := &csi.VolumeGroupSnapshot{GroupSnapshotId: g.ID, CreationTime: timestamppb.New(g.Created), ReadyToUse: true}
	for _, s := range c.store.Members(g) {
		member := toCSISnapshot(s)
		out.Snapshots = append(out.Snapshots, member)
		out.ReadyToUse = out.GetReadyToUse() && member.GetReadyToUse()
	}
	return out
}

func (c *groupController) GetVolumeGroupSnapshot(_ context.Context, r *csi.GetVolumeGroupSnapshotRequest) (*csi.GetVolumeGroupSnapshotResponse, error) {
	if err := required("group_snapshot_id", r.GetGroupSnapshotId()); err != nil {
		return nil, err
	}
	g, err := c.store.Group(r.GetGroupSnapshotId())
	if err != nil {
		return nil, err
	}
	if err := g.CheckMembers(r.GetSnapshotIds()); err != nil {
		return nil, err
	}
	return &csi.GetVolumeGroupSnapshotResponse{GroupSnapshot: c.toCSIGroup(g)}, nil
}

func (c *groupController) DeleteVolumeGroupSnapshot(ctx context.Context, r *csi.DeleteVolumeGroupSnapshotRequest) (*csi.DeleteVolumeGroupSnapshotResponse, error) {
	if err := required("group_snapshot_id", r.GetGroupSnapshotId()); err != nil {
		return nil, err
	}
	if err := c.store.DeleteGroup(ctx, r.GetGroupSnapshotId(), r.GetSnapshotIds()); err != nil {
		return nil, err
	}
	return &csi.DeleteVolumeGroupSnapshotResponse{}, nil
}
