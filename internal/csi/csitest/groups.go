package csitest

import (
	"context"
	"fmt"
	"maps"
	"slices"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// group is a set of snapshots that were created at the same point in time.
type group struct {
	number  int64
	id      string
	name    string
	params  map[string]string
	at      *timestamppb.Timestamp
	members []*snapshot
}

func (g *group) memberIDs() []string {
	var ids []string
	for _, member := range g.members {
		ids = append(ids, member.info.GetSnapshotId())
	}
	return ids
}

func (g *group) sources() []string {
	var ids []string
	for _, member := range g.members {
		ids = append(ids, member.info.GetSourceVolumeId())
	}
	return ids
}

type groupController struct {
	csipb.UnimplementedGroupControllerServer
	*Driver
}

func (d groupController) GroupControllerGetCapabilities(context.Context, *csipb.GroupControllerGetCapabilitiesRequest) (*csipb.GroupControllerGetCapabilitiesResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	resp := &csipb.GroupControllerGetCapabilitiesResponse{}
	for _, c := range d.opts.Group {
		resp.Capabilities = append(resp.Capabilities, &csipb.GroupControllerServiceCapability{
			Type: &csipb.GroupControllerServiceCapability_Rpc{Rpc: &csipb.GroupControllerServiceCapability_RPC{Type: c}},
		})
	}
	return resp, nil
}

func (d groupController) CreateVolumeGroupSnapshot(_ context.Context, req *csipb.CreateVolumeGroupSnapshotRequest) (*csipb.CreateVolumeGroupSnapshotResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := checkName(req.GetName()); err != nil {
		return nil, err
	}
	if len(req.GetSourceVolumeIds()) == 0 {
		return nil, errMissing("source_volume_ids")
	}
	g := d.state.groupNames[req.GetName()]
	if g == nil {
		sources, err := d.findVolumes(req.GetSourceVolumeIds())
		if err != nil {
			return nil, err
		}
		g = d.state.createGroup(req, sources)
	}
	if !sameSet(g.sources(), req.GetSourceVolumeIds()) || !maps.Equal(g.params, req.GetParameters()) {
		return nil, status.Errorf(codes.AlreadyExists, "group snapshot %q exists with other volumes or parameters", req.GetName())
	}
	return &csipb.CreateVolumeGroupSnapshotResponse{GroupSnapshot: d.groupResponse(g)}, nil
}

// findVolumes returns all volumes, or an error if one does not exist.
func (d *Driver) findVolumes(ids []string) ([]*volume, error) {
	var all []*volume
	for _, id := range ids {
		v, err := d.findVolume(id)
		if err != nil {
			return nil, err
		}
		if slices.Contains(all, v) {
			return nil, status.Errorf(codes.InvalidArgument, "volume %q is requested twice", id)
		}
		all = append(all, v)
	}
	return all, nil
}

func (s *state) createGroup(req *csipb.CreateVolumeGroupSnapshotRequest, sources []*volume) *group {
	s.last++
	g := &group{
		number: s.last, id: fmt.Sprintf("group-%d", s.last), name: req.GetName(),
		params: maps.Clone(req.GetParameters()), at: timestamppb.Now(),
	}
	for _, source := range sources {
		member := s.addSnapshot(source, g.at)
		member.info.GroupSnapshotId = g.id
		g.members = append(g.members, member)
	}
	s.groups[g.id], s.groupNames[g.name] = g, g
	return g
}

func (d groupController) GetVolumeGroupSnapshot(_ context.Context, req *csipb.GetVolumeGroupSnapshotRequest) (*csipb.GetVolumeGroupSnapshotResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if req.GetGroupSnapshotId() == "" {
		return nil, errMissing("group_snapshot_id")
	}
	g := d.state.groups[req.GetGroupSnapshotId()]
	if g == nil {
		return nil, status.Errorf(codes.NotFound, "there is no group snapshot %q", req.GetGroupSnapshotId())
	}
	if err := g.checkMembers(req.GetSnapshotIds()); err != nil {
		return nil, err
	}
	return &csipb.GetVolumeGroupSnapshotResponse{GroupSnapshot: d.groupResponse(g)}, nil
}

func (d groupController) DeleteVolumeGroupSnapshot(_ context.Context, req *csipb.DeleteVolumeGroupSnapshotRequest) (*csipb.DeleteVolumeGroupSnapshotResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if req.GetGroupSnapshotId() == "" {
		return nil, errMissing("group_snapshot_id")
	}
	if g := d.state.groups[req.GetGroupSnapshotId()]; g != nil {
		if err := g.checkMembers(req.GetSnapshotIds()); err != nil {
			return nil, err
		}
		for _, member := range g.members {
			d.state.removeSnapshot(member)
		}
		delete(d.state.groups, g.id)
		delete(d.state.groupNames, g.name)
	}
	return &csipb.DeleteVolumeGroupSnapshotResponse{}, nil
}

// checkMembers rejects a request with other members than the group's, as the
// specification requires of drivers that can check.
func (g *group) checkMembers(ids []string) error {
	if !sameSet(g.memberIDs(), ids) {
		return status.Errorf(codes.InvalidArgument, "snapshot_ids %q are not the members of group snapshot %q", ids, g.id)
	}
	return nil
}

func sameSet(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// groupResponse is a response about a group. It counts as a response about each
// member.
func (d *Driver) groupResponse(g *group) *csipb.VolumeGroupSnapshot {
	info := &csipb.VolumeGroupSnapshot{GroupSnapshotId: g.id, CreationTime: g.at, ReadyToUse: true}
	for _, member := range g.members {
		one := d.snapshotResponse(member)
		info.Snapshots = append(info.Snapshots, one)
		info.ReadyToUse = info.ReadyToUse && one.GetReadyToUse()
	}
	return info
}
