package csi

import (
	"context"
	"fmt"
	"iter"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
)

// CreateVolume creates the volume with the request's name, or finds it
// ("CreateVolume": idempotent by name). Sizes are bytes. It waits for other calls
// with the same name. In the returned volume the id is set, and capacity_bytes is
// within the requested range; it is the required size if the driver does not know
// the size. If the request has a content source, the volume has one too, perhaps
// under another id; if it has a topology requirement, the volume is accessible from
// one of the requisite topologies. Any other response is an [InvalidResponse] with the id, so that
// the caller can delete the volume.
func (d *Driver) CreateVolume(ctx context.Context, req *csipb.CreateVolumeRequest) (*csipb.Volume, error) {
	resp, err := send(ctx, d, operation{CreateVolume, volumeNamed(req.GetName())}, d.controller.CreateVolume, req)
	if err != nil {
		return nil, err
	}
	volume := resp.GetVolume()
	if reason := checkVolume(req, volume); reason != "" {
		return nil, d.invalidResponse(CreateVolume, volume.GetVolumeId(), reason)
	}
	what, detail := volumeDeviation(req, volume)
	d.logDeviation(ctx, CreateVolume, what, detail)
	if volume.GetCapacityBytes() == 0 {
		volume.CapacityBytes = req.GetCapacityRange().GetRequiredBytes()
	}
	return volume, nil
}

// ControllerGetVolume reads a volume and the nodes that it is published on
// ("ControllerGetVolume", capability GET_VOLUME). It waits for other calls about
// the id. A response without an id is an [InvalidResponse]. A response with another
// id is accepted as the driver's own name for the requested volume.
func (d *Driver) ControllerGetVolume(ctx context.Context, id string) (*csipb.ControllerGetVolumeResponse, error) {
	req := &csipb.ControllerGetVolumeRequest{VolumeId: id}
	resp, err := send(ctx, d, operation{ControllerGetVolume, volumeID(id)}, d.controller.ControllerGetVolume, req)
	if err != nil {
		return nil, err
	}
	switch got := resp.GetVolume().GetVolumeId(); got {
	case id:
	case "":
		return nil, d.invalidResponse(ControllerGetVolume, "", "the volume has no id")
	default:
		d.logDeviation(ctx, ControllerGetVolume, "a volume has another id than in the request", fmt.Sprintf("requested %q, reported %q", id, got))
	}
	return resp, nil
}

// ControllerExpandVolume expands a volume to at least the required bytes
// ("ControllerExpandVolume"). It waits for other calls about the id. A capacity
// that is zero, less than required or above the limit is an [InvalidResponse].
func (d *Driver) ControllerExpandVolume(ctx context.Context, req *csipb.ControllerExpandVolumeRequest) (*csipb.ControllerExpandVolumeResponse, error) {
	resp, err := send(ctx, d, operation{ControllerExpandVolume, volumeID(req.GetVolumeId())}, d.controller.ControllerExpandVolume, req)
	if err != nil {
		return nil, err
	}
	if reason := checkExpansion(req, resp); reason != "" {
		return nil, d.invalidResponse(ControllerExpandVolume, req.GetVolumeId(), reason)
	}
	return resp, nil
}

// ControllerModifyVolume sets the volume's mutable parameters
// ("ControllerModifyVolume", capability MODIFY_VOLUME). It waits for other
// calls about the id.
func (d *Driver) ControllerModifyVolume(ctx context.Context, req *csipb.ControllerModifyVolumeRequest) error {
	_, err := send(ctx, d, operation{ControllerModifyVolume, volumeID(req.GetVolumeId())}, d.controller.ControllerModifyVolume, req)
	return err
}

// GetCapacity reads how many bytes are available for volumes with the parameters
// and the topology of the request ("GetCapacity", capability GET_CAPACITY).
// Negative sizes are an [InvalidResponse].
func (d *Driver) GetCapacity(ctx context.Context, req *csipb.GetCapacityRequest) (*csipb.GetCapacityResponse, error) {
	resp, err := send(ctx, d, operation{method: GetCapacity}, d.controller.GetCapacity, req)
	if err != nil {
		return nil, err
	}
	if resp.GetAvailableCapacity() < 0 || resp.GetMaximumVolumeSize().GetValue() < 0 {
		return nil, d.invalidResponse(GetCapacity, "", "the size is negative")
	}
	return resp, nil
}

// ListVolumes iterates over all volumes ("ListVolumes", capability LIST_VOLUMES) in
// pages of at most pageSize entries; with 0 the driver decides. Each page is a call
// with its own timeout, however long the caller takes between two pages. The
// iteration ends with the first error. Code Aborted means that the token of a page
// has expired, and the caller starts again. A page that leads back to an earlier
// one and an entry without id are an [InvalidResponse].
func (d *Driver) ListVolumes(ctx context.Context, pageSize int32) iter.Seq2[*csipb.ListVolumesResponse_Entry, error] {
	fetch := func(token string) ([]*csipb.ListVolumesResponse_Entry, string, error) {
		req := &csipb.ListVolumesRequest{MaxEntries: pageSize, StartingToken: token}
		resp, err := send(ctx, d, operation{method: ListVolumes}, d.controller.ListVolumes, req)
		return resp.GetEntries(), resp.GetNextToken(), err
	}
	check := func(e *csipb.ListVolumesResponse_Entry) error {
		if e.GetVolume().GetVolumeId() == "" {
			return d.invalidResponse(ListVolumes, "", "the list has a volume without an id")
		}
		return nil
	}
	return paginate(fetch, check, func() error { return d.invalidResponse(ListVolumes, "", pageLoop) })
}
