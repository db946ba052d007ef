package local

import (
	"context"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/holdfast-io/holdfast/driver/local/disk"
	"github.com/holdfast-io/holdfast/driver/local/volume"
)

// controller implements the controller service. It works on files only and needs no
// privileges.
type controller struct {
	csi.UnimplementedControllerServer
	options *Options
	store   *volume.Store
}

func (c *controller) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	return &csi.ControllerGetCapabilitiesResponse{Capabilities: c.options.controllerCapabilities()}, nil
}

func (c *controller) CreateVolume(ctx context.Context, r *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	if err := required("name", r.GetName()); err != nil {
		return nil, err
	}
	access, fsType, err := accessOf(r.GetVolumeCapabilities())
	if err != nil {
		return nil, err
	}
	if err := c.options.checkParameters(r.GetParameters()); err != nil {
		return nil, err
	}
	if err := checkMutable(r.GetMutableParameters()); err != nil {
		return nil, err
	}
	source, err := sourceOf(r.GetVolumeContentSource())
	if err != nil {
		return nil, err
	}
	if err := c.options.checkTopology(r.GetAccessibilityRequirements()); err != nil {
		return nil, err
	}
	v, err := c.store.Create(ctx, volume.Spec{
		Name: r.GetName(), Range: rangeOf(r.GetCapacityRange()), Access: access, FSType: fsType, Source: source,
	})
	if err != nil {
		return nil, err
	}
	return &csi.CreateVolumeResponse{Volume: c.toCSIVolume(v)}, nil
}

// toCSIVolume converts a record. A repeated CreateVolume is answered from the same
// record, so its response is the same.
func (c *controller) toCSIVolume(v volume.Volume) *csi.Volume {
	out := &csi.Volume{VolumeId: v.ID, CapacityBytes: v.Size}
	if segment := c.options.topology(); segment != nil {
		out.AccessibleTopology = []*csi.Topology{segment}
	}
	switch {
	case v.Source == nil:
	case v.Source.Kind == volume.FromSnapshot:
		out.ContentSource = &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{
			Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: v.Source.ID}}}
	default:
		out.ContentSource = &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{
			Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: v.Source.ID}}}
	}
	return out
}

func (c *controller) DeleteVolume(ctx context.Context, r *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	if err := required("volume_id", r.GetVolumeId()); err != nil {
		return nil, err
	}
	if err := c.store.Delete(ctx, r.GetVolumeId()); err != nil {
		return nil, err
	}
	return &csi.DeleteVolumeResponse{}, nil
}

func (c *controller) ControllerExpandVolume(ctx context.Context, r *csi.ControllerExpandVolumeRequest) (*csi.ControllerExpandVolumeResponse, error) {
	if err := required("volume_id", r.GetVolumeId()); err != nil {
		return nil, err
	}
	if r.GetVolumeCapability() != nil {
		if _, err := useOf(r.GetVolumeCapability()); err != nil {
			return nil, err
		}
	}
	v, err := c.store.Expand(ctx, r.GetVolumeId(), rangeOf(r.GetCapacityRange()))
	if err != nil {
		return nil, err
	}
	// The loop device must always be resized, and the filesystem if there is one.
	return &csi.ControllerExpandVolumeResponse{CapacityBytes: v.Size, NodeExpansionRequired: true}, nil
}

func (c *controller) ControllerGetVolume(_ context.Context, r *csi.ControllerGetVolumeRequest) (*csi.ControllerGetVolumeResponse, error) {
	if err := required("volume_id", r.GetVolumeId()); err != nil {
		return nil, err
	}
	v, err := c.store.Volume(r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	nodes, err := c.publishedNodes(v.ID)
	if err != nil {
		return nil, err
	}
	return &csi.ControllerGetVolumeResponse{Volume: c.toCSIVolume(v), Status: &csi.ControllerGetVolumeResponse_VolumeStatus{PublishedNodeIds: nodes}}, nil
}

func (c *controller) ValidateVolumeCapabilities(_ context.Context, r *csi.ValidateVolumeCapabilitiesRequest) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	if err := required("volume_id", r.GetVolumeId()); err != nil {
		return nil, err
	}
	if len(r.GetVolumeCapabilities()) == 0 {
		return nil, invalid("the volume capabilities are missing")
	}
	v, err := c.store.Volume(r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if err := c.checkCapabilities(v, r); err != nil {
		return &csi.ValidateVolumeCapabilitiesResponse{Message: err.Error()}, nil //nolint:nilerr // Rejecting the capabilities is a valid response.
	}
	return &csi.ValidateVolumeCapabilitiesResponse{Confirmed: &csi.ValidateVolumeCapabilitiesResponse_Confirmed{
		VolumeContext:      r.GetVolumeContext(),
		VolumeCapabilities: r.GetVolumeCapabilities(),
		Parameters:         r.GetParameters(),
	}}, nil
}

// checkCapabilities returns why v does not satisfy r, as a message for the caller.
func (c *controller) checkCapabilities(v volume.Volume, r *csi.ValidateVolumeCapabilitiesRequest) error {
	if err := c.options.checkParameters(r.GetParameters()); err != nil {
		return err
	}
	if err := checkMutable(r.GetMutableParameters()); err != nil {
		return err
	}
	for _, capability := range r.GetVolumeCapabilities() {
		u, err := useOf(capability)
		if err == nil {
			err = u.checkAccess(v)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkAccess returns an error unless the volume was created for this use.
func (u use) checkAccess(v volume.Volume) error {
	switch {
	case u.block && !v.Access.Block, !u.block && !v.Access.Mount:
		return invalid("the volume was made for mount=%t block=%t", v.Access.Mount, v.Access.Block)
	case u.fsType != "" && u.fsType != v.FSType:
		return invalid("the volume was made for %s", v.FSType)
	}
	return nil
}

func (c *controller) GetCapacity(_ context.Context, r *csi.GetCapacityRequest) (*csi.GetCapacityResponse, error) {
	none := &csi.GetCapacityResponse{MaximumVolumeSize: wrapperspb.Int64(0)}
	// Volumes that cannot be created here have no capacity here. That is a valid
	// response, not an error.
	if c.options.checkParameters(r.GetParameters()) != nil || !c.options.includesThisNode(r.GetAccessibleTopology()) {
		return none, nil //nolint:nilerr // As the comment says.
	}
	smallest := int64(volume.Step)
	if len(r.GetVolumeCapabilities()) > 0 {
		_, fsType, err := accessOf(r.GetVolumeCapabilities())
		if err != nil {
			return none, nil //nolint:nilerr // As above.
		}
		smallest = max(smallest, disk.MinSize(fsType))
	}
	left, err := c.store.AvailableCapacity()
	if err != nil {
		return nil, err
	}
	return &csi.GetCapacityResponse{
		AvailableCapacity: left,
		MaximumVolumeSize: wrapperspb.Int64(left),
		MinimumVolumeSize: wrapperspb.Int64(smallest),
	}, nil
}

// checkPage validates paging arguments. A token is the last ID of the previous page.
func checkPage(maxEntries int32, token string) error {
	if maxEntries < 0 {
		return invalid("max_entries is %d and cannot be negative", maxEntries)
	}
	if token != "" && !volume.IsID(token) {
		return errBadToken
	}
	return nil
}

func (c *controller) ListVolumes(_ context.Context, r *csi.ListVolumesRequest) (*csi.ListVolumesResponse, error) {
	if err := checkPage(r.GetMaxEntries(), r.GetStartingToken()); err != nil {
		return nil, err
	}
	volumes, more, err := c.store.Volumes(r.GetStartingToken(), int(r.GetMaxEntries()))
	if err != nil {
		return nil, err
	}
	out := &csi.ListVolumesResponse{}
	for _, v := range volumes {
		nodes, err := c.publishedNodes(v.ID)
		if err != nil {
			return nil, err
		}
		out.Entries = append(out.Entries, &csi.ListVolumesResponse_Entry{
			Volume: c.toCSIVolume(v), Status: &csi.ListVolumesResponse_VolumeStatus{PublishedNodeIds: nodes}})
	}
	if more {
		out.NextToken = volumes[len(volumes)-1].ID
	}
	return out, nil
}
