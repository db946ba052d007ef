package csitest

import (
	"cmp"
	"context"
	"maps"
	"math"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

type controller struct {
	csipb.UnimplementedControllerServer
	*Driver
}

func (d controller) ControllerGetCapabilities(context.Context, *csipb.ControllerGetCapabilitiesRequest) (*csipb.ControllerGetCapabilitiesResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	resp := &csipb.ControllerGetCapabilitiesResponse{}
	for _, t := range d.opts.Controller {
		resp.Capabilities = append(resp.Capabilities, &csipb.ControllerServiceCapability{
			Type: &csipb.ControllerServiceCapability_Rpc{Rpc: &csipb.ControllerServiceCapability_RPC{Type: t}},
		})
	}
	return resp, nil
}

func (d controller) CreateVolume(_ context.Context, req *csipb.CreateVolumeRequest) (*csipb.CreateVolumeResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.checkCreate(req); err != nil {
		return nil, err
	}
	if v := d.state.volumeNames[req.GetName()]; v != nil {
		if !d.matches(v, req) {
			return nil, status.Errorf(codes.AlreadyExists, "volume %q exists and does not match the request", req.GetName())
		}
		return &csipb.CreateVolumeResponse{Volume: v.info}, nil
	}
	size, err := d.sizeOf(req)
	if err != nil {
		return nil, err
	}
	segment, err := d.chooseSegment(req.GetAccessibilityRequirements(), size)
	if err != nil {
		return nil, err
	}
	kept := proto.CloneOf(req)
	kept.Secrets = nil
	v := &volume{req: kept, segment: segment, info: &csipb.Volume{
		CapacityBytes:      size,
		VolumeContext:      map[string]string{"name": req.GetName()},
		ContentSource:      kept.GetVolumeContentSource(),
		AccessibleTopology: d.topologyOf(segment),
	}}
	d.state.addVolume(v)
	return &csipb.CreateVolumeResponse{Volume: v.info}, nil
}

// checkCreate checks what makes a request invalid whatever exists.
func (d controller) checkCreate(req *csipb.CreateVolumeRequest) error {
	if err := checkName(req.GetName()); err != nil {
		return err
	}
	if err := checkCapabilities(req.GetVolumeCapabilities()...); err != nil {
		return err
	}
	if err := d.checkRange(req.GetCapacityRange()); err != nil {
		return err
	}
	if err := d.checkMutable(req.GetMutableParameters()); err != nil {
		return err
	}
	if req.GetVolumeContentSource().GetVolume() != nil && !d.can(csipb.ControllerServiceCapability_RPC_CLONE_VOLUME) {
		return status.Error(codes.InvalidArgument, "volumes cannot be cloned")
	}
	return nil
}

// matches reports whether a volume is what a repeated request asks for.
func (d controller) matches(v *volume, req *csipb.CreateVolumeRequest) bool {
	size, requested := v.info.GetCapacityBytes(), req.GetCapacityRange()
	same := &csipb.CreateVolumeRequest{
		VolumeCapabilities: req.GetVolumeCapabilities(), VolumeContentSource: req.GetVolumeContentSource(),
		Parameters: req.GetParameters(), MutableParameters: req.GetMutableParameters(),
	}
	stored := &csipb.CreateVolumeRequest{
		VolumeCapabilities: v.req.GetVolumeCapabilities(), VolumeContentSource: v.req.GetVolumeContentSource(),
		Parameters: v.req.GetParameters(), MutableParameters: v.req.GetMutableParameters(),
	}
	return size >= requested.GetRequiredBytes() && (requested.GetLimitBytes() == 0 || size <= requested.GetLimitBytes()) &&
		proto.Equal(same, stored) && d.isAllowed(v.segment, req.GetAccessibilityRequirements())
}

// sizeOf is the size in bytes of a new volume.
func (d controller) sizeOf(req *csipb.CreateVolumeRequest) (int64, error) {
	source, err := d.sizeOfSource(req.GetVolumeContentSource())
	if err != nil {
		return 0, err
	}
	size, limit := req.GetCapacityRange().GetRequiredBytes(), req.GetCapacityRange().GetLimitBytes()
	if limit == 0 {
		limit = math.MaxInt64
	}
	if size == 0 {
		size = cmp.Or(source, min(DefaultSize, limit))
	}
	if size < source || size > limit {
		return 0, status.Errorf(codes.OutOfRange, "the source has %d bytes, %d to %d were requested", source, size, limit)
	}
	return size, nil
}

// sizeOfSource is 0 if there is no source.
func (d controller) sizeOfSource(from *csipb.VolumeContentSource) (int64, error) {
	switch {
	case from.GetSnapshot() != nil:
		snap := d.state.snapshots[from.GetSnapshot().GetSnapshotId()]
		if snap == nil {
			return 0, status.Errorf(codes.NotFound, "there is no snapshot %q", from.GetSnapshot().GetSnapshotId())
		}
		return snap.info.GetSizeBytes(), nil
	case from.GetVolume() != nil:
		v := d.state.volumes[from.GetVolume().GetVolumeId()]
		if v == nil {
			return 0, status.Errorf(codes.NotFound, "there is no volume %q", from.GetVolume().GetVolumeId())
		}
		return v.info.GetCapacityBytes(), nil
	default:
		return 0, nil
	}
}

func (d controller) DeleteVolume(_ context.Context, req *csipb.DeleteVolumeRequest) (*csipb.DeleteVolumeResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if req.GetVolumeId() == "" {
		return nil, errMissing("volume_id")
	}
	v := d.state.volumes[req.GetVolumeId()]
	if v == nil {
		return &csipb.DeleteVolumeResponse{}, nil
	}
	for node := range v.published {
		return nil, status.Errorf(codes.FailedPrecondition, "volume %q is published on node %q", req.GetVolumeId(), node)
	}
	d.state.removeVolume(v)
	return &csipb.DeleteVolumeResponse{}, nil
}

func (d controller) ValidateVolumeCapabilities(_ context.Context, req *csipb.ValidateVolumeCapabilitiesRequest) (*csipb.ValidateVolumeCapabilitiesResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := d.findVolume(req.GetVolumeId()); err != nil {
		return nil, err
	}
	if err := checkCapabilities(req.GetVolumeCapabilities()...); err != nil {
		return nil, err
	}
	return &csipb.ValidateVolumeCapabilitiesResponse{Confirmed: &csipb.ValidateVolumeCapabilitiesResponse_Confirmed{
		VolumeContext: req.GetVolumeContext(), VolumeCapabilities: req.GetVolumeCapabilities(),
		Parameters: req.GetParameters(), MutableParameters: req.GetMutableParameters(),
	}}, nil
}

func (d controller) ControllerModifyVolume(_ context.Context, req *csipb.ControllerModifyVolumeRequest) (*csipb.ControllerModifyVolumeResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v, err := d.findVolume(req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if err := d.checkMutable(req.GetMutableParameters()); err != nil {
		return nil, err
	}
	if v.mutable == nil {
		v.mutable = make(map[string]string)
	}
	maps.Copy(v.mutable, req.GetMutableParameters())
	return &csipb.ControllerModifyVolumeResponse{}, nil
}

// findVolume returns a volume, or the error that every call returns for a missing
// one.
func (d *Driver) findVolume(id string) (*volume, error) {
	if id == "" {
		return nil, errMissing("volume_id")
	}
	v := d.state.volumes[id]
	if v == nil {
		return nil, status.Errorf(codes.NotFound, "there is no volume %q", id)
	}
	return v, nil
}
