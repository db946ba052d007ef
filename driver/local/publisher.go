package local

import (
	"context"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// publisher is the part of the controller service that publishes volumes. It has no
// state in memory: attachments are recorded in the data directory under locks that all
// processes share. Any number of replicas can therefore run next to the one controller
// that creates and deletes volumes.
type publisher struct {
	csi.UnimplementedControllerServer
	controller *controller
}

func (p *publisher) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	return &csi.ControllerGetCapabilitiesResponse{Capabilities: publisherCapabilities()}, nil
}

func (p *publisher) ControllerPublishVolume(ctx context.Context, r *csi.ControllerPublishVolumeRequest) (*csi.ControllerPublishVolumeResponse, error) {
	return p.controller.ControllerPublishVolume(ctx, r)
}

func (p *publisher) ControllerUnpublishVolume(ctx context.Context, r *csi.ControllerUnpublishVolumeRequest) (*csi.ControllerUnpublishVolumeResponse, error) {
	return p.controller.ControllerUnpublishVolume(ctx, r)
}

func (p *publisher) ListVolumes(ctx context.Context, r *csi.ListVolumesRequest) (*csi.ListVolumesResponse, error) {
	return p.controller.ListVolumes(ctx, r)
}

func (p *publisher) ControllerGetVolume(ctx context.Context, r *csi.ControllerGetVolumeRequest) (*csi.ControllerGetVolumeResponse, error) {
	return p.controller.ControllerGetVolume(ctx, r)
}

func (p *publisher) ValidateVolumeCapabilities(ctx context.Context, r *csi.ValidateVolumeCapabilitiesRequest) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	return p.controller.ValidateVolumeCapabilities(ctx, r)
}
