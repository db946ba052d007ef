package local

import (
	"context"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-io/holdfast/driver/local/volume"
)

func (c *controller) ControllerGetVolumeHealth(_ context.Context, r *csi.ControllerGetVolumeHealthRequest) (*csi.ControllerGetVolumeHealthResponse, error) {
	if err := required("volume_id", r.GetVolumeId()); err != nil {
		return nil, err
	}
	problems, err := c.store.Health(r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	return &csi.ControllerGetVolumeHealthResponse{VolumeHealth: health(r.GetVolumeId(), problems)}, nil
}

// ControllerListVolumeHealth lists only volumes with problems.
func (c *controller) ControllerListVolumeHealth(_ context.Context, r *csi.ControllerListVolumeHealthRequest) (*csi.ControllerListVolumeHealthResponse, error) {
	if err := checkPage(r.GetMaxEntries(), r.GetStartingToken()); err != nil {
		return nil, err
	}
	volumes, _, err := c.store.Volumes(r.GetStartingToken(), 0)
	if err != nil {
		return nil, err
	}
	out := &csi.ControllerListVolumeHealthResponse{}
	for _, v := range volumes {
		problems, err := c.store.Health(v.ID)
		if err != nil || len(problems) == 0 {
			continue // healthy, or deleted since it was listed
		}
		if n := len(out.Entries); n > 0 && n == int(r.GetMaxEntries()) {
			out.NextToken = out.Entries[n-1].GetVolumeId()
			break
		}
		out.Entries = append(out.Entries, health(v.ID, problems))
	}
	return out, nil
}

func (n *node) NodeGetVolumeHealth(_ context.Context, r *csi.NodeGetVolumeHealthRequest) (*csi.NodeGetVolumeHealthResponse, error) {
	if err := required("volume_id", r.GetVolumeId()); err != nil {
		return nil, err
	}
	problems, err := n.stager.Health(r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	return &csi.NodeGetVolumeHealthResponse{VolumeHealth: health(r.GetVolumeId(), problems)}, nil
}

func (n *node) NodeGetStorageHealth(context.Context, *csi.NodeGetStorageHealthRequest) (*csi.NodeGetStorageHealthResponse, error) {
	free, err := n.stager.Store.DiskFree()
	switch {
	case err != nil:
		return storageHealth(csi.StorageHealthErrorType_STORAGE_UNREACHABLE, "DataDirectoryUnusable", err.Error()), nil
	case free < volume.Step:
		return storageHealth(csi.StorageHealthErrorType_STORAGE_DEGRADED, "DiskFull",
			"The disk that holds "+n.stager.Store.Dir()+" is full and volumes that need more of it get write errors. Make room there."), nil
	}
	return &csi.NodeGetStorageHealthResponse{}, nil
}

func storageHealth(status csi.StorageHealthErrorType, reason, message string) *csi.NodeGetStorageHealthResponse {
	return &csi.NodeGetStorageHealthResponse{BackendHealth: []*csi.NodeGetStorageHealthResponse_StorageBackendHealth{
		{Status: status, Reason: reason, Message: message},
	}}
}

// severities maps the severities of package volume to CSI's.
var severities = map[volume.Severity]csi.VolumeHealthErrorType{
	volume.Degraded:     csi.VolumeHealthErrorType_DEGRADED,
	volume.Inaccessible: csi.VolumeHealthErrorType_INACCESSIBLE,
	volume.DataLoss:     csi.VolumeHealthErrorType_DATA_LOSS,
}

func health(id string, problems []volume.Problem) *csi.VolumeHealth {
	out := &csi.VolumeHealth{VolumeId: id}
	for _, p := range problems {
		out.HealthStatuses = append(out.HealthStatuses, &csi.VolumeHealth_VolumeHealthEntry{
			Status: severities[p.Severity], Reason: p.Reason, Message: p.Message,
		})
	}
	return out
}
