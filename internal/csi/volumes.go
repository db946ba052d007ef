package csi

import (
	"context"
	"fmt"
	"iter"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
)

// CreateVolume makes the volume with the request's name, or finds it
// ("CreateVolume": idempotent by name). Sizes are bytes. It waits for other
// calls with the same name. In the answer the id is set, capacity_bytes lies
// within the request's range and is the required size if the driver does not
// know it, and a content source that was asked for is there, perhaps in other
// words; anything else is a [InvalidResponse] with the id, so that the volume can be
// deleted.
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
// ("ControllerGetVolume", capability GET_VOLUME). It waits for other calls
// about the id. An answer without an id is a [InvalidResponse]; one with another id is
// about the volume that was asked for, in other words.
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
		d.logDeviation(ctx, ControllerGetVolume, "it names a volume otherwise than the request did", fmt.Sprintf("asked for was %q, reported is %q", id, got))
	}
	return resp, nil
}

// ControllerExpandVolume grows a volume to at least the required bytes
// ("ControllerExpandVolume"). It waits for other calls about the id. The
// answered capacity is never zero, below what was required or above the limit:
// that is a [InvalidResponse].
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

// GetCapacity asks how many bytes are free for volumes of the request's kind
// and place ("GetCapacity", capability GET_CAPACITY). Negative sizes are a
// [InvalidResponse].
func (d *Driver) GetCapacity(ctx context.Context, req *csipb.GetCapacityRequest) (*csipb.GetCapacityResponse, error) {
	resp, err := send(ctx, d, operation{method: GetCapacity}, d.controller.GetCapacity, req)
	if err != nil {
		return nil, err
	}
	if resp.GetAvailableCapacity() < 0 || resp.GetMaximumVolumeSize().GetValue() < 0 {
		return nil, d.invalidResponse(GetCapacity, "", "it reports a negative size")
	}
	return resp, nil
}

// ListVolumes walks through all volumes ("ListVolumes", capability
// LIST_VOLUMES), asking for pages of at most pageSize entries (0 leaves it to
// the driver). Each page has the time of a call of its own, however long the
// caller takes between two. The walk ends with the first error; after code
// Aborted the driver has forgotten where it was, so start again. A page that
// leads back to itself and an entry without id are a [InvalidResponse].
func (d *Driver) ListVolumes(ctx context.Context, pageSize int32) iter.Seq2[*csipb.ListVolumesResponse_Entry, error] {
	fetch := func(token string) ([]*csipb.ListVolumesResponse_Entry, string, error) {
		req := &csipb.ListVolumesRequest{MaxEntries: pageSize, StartingToken: token}
		resp, err := send(ctx, d, operation{method: ListVolumes}, d.controller.ListVolumes, req)
		return resp.GetEntries(), resp.GetNextToken(), err
	}
	check := func(e *csipb.ListVolumesResponse_Entry) error {
		if e.GetVolume().GetVolumeId() == "" {
			return d.invalidResponse(ListVolumes, "", "it lists a volume without an id")
		}
		return nil
	}
	return paginate(fetch, check, func() error { return d.invalidResponse(ListVolumes, "", pageLoop) })
}
