package csitest

import (
	"context"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

func (d controller) ControllerExpandVolume(_ context.Context, req *csipb.ControllerExpandVolumeRequest) (*csipb.ControllerExpandVolumeResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	requested := req.GetCapacityRange()
	if req.GetVolumeId() != "" && requested == nil {
		return nil, errMissing("capacity_range")
	}
	v, err := d.findVolume(req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if err := d.checkRange(requested); err != nil {
		return nil, err
	}
	now, target := v.info.GetCapacityBytes(), requested.GetRequiredBytes()
	if limit := requested.GetLimitBytes(); limit > 0 && now > limit {
		return nil, status.Errorf(codes.OutOfRange, "the volume has %d bytes already", now)
	}
	if target > now {
		if err := d.grow(v, target); err != nil {
			return nil, err
		}
	}
	return &csipb.ControllerExpandVolumeResponse{
		CapacityBytes:         v.info.GetCapacityBytes(),
		NodeExpansionRequired: d.opts.NodeExpansion && req.GetVolumeCapability().GetBlock() == nil,
	}, nil
}

func (d controller) grow(v *volume, target int64) error {
	if d.opts.OfflineExpansion && len(v.published) > 0 {
		return status.Errorf(codes.FailedPrecondition, "volume %q is published and cannot be expanded until it is not", v.info.GetVolumeId())
	}
	if d.freeBytes(v.segment) < target-v.info.GetCapacityBytes() {
		return status.Errorf(codes.ResourceExhausted, "there is no room for %d bytes", target)
	}
	grown := proto.CloneOf(v.info)
	grown.CapacityBytes = target
	v.info = grown
	return nil
}
