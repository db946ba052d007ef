package csitest

import (
	"context"
	"maps"
	"slices"
	"strconv"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func (d controller) ListVolumes(_ context.Context, req *csipb.ListVolumesRequest) (*csipb.ListVolumesResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := d.state.oldestVolumes()
	from, to, next, err := page(req, len(all), func(i int) int64 { return all[i].number })
	if err != nil {
		return nil, err
	}
	resp := &csipb.ListVolumesResponse{NextToken: next}
	for _, v := range all[from:to] {
		resp.Entries = append(resp.Entries, &csipb.ListVolumesResponse_Entry{
			Volume: v.info, Status: &csipb.ListVolumesResponse_VolumeStatus{PublishedNodeIds: d.nodesOf(v)},
		})
	}
	return resp, nil
}

func (d controller) ControllerGetVolume(_ context.Context, req *csipb.ControllerGetVolumeRequest) (*csipb.ControllerGetVolumeResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v, err := d.findVolume(req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	return &csipb.ControllerGetVolumeResponse{
		Volume: v.info, Status: &csipb.ControllerGetVolumeResponse_VolumeStatus{PublishedNodeIds: d.nodesOf(v)},
	}, nil
}

func (d controller) ListSnapshots(_ context.Context, req *csipb.ListSnapshotsRequest) (*csipb.ListSnapshotsResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := slices.DeleteFunc(d.state.oldestSnapshots(), func(s *snapshot) bool {
		id, source := req.GetSnapshotId(), req.GetSourceVolumeId()
		return (id != "" && id != s.info.GetSnapshotId()) || (source != "" && source != s.info.GetSourceVolumeId())
	})
	from, to, next, err := page(req, len(all), func(i int) int64 { return all[i].number })
	if err != nil {
		return nil, err
	}
	resp := &csipb.ListSnapshotsResponse{NextToken: next}
	for _, s := range all[from:to] {
		resp.Entries = append(resp.Entries, &csipb.ListSnapshotsResponse_Entry{Snapshot: d.snapshotResponse(s)})
	}
	return resp, nil
}

// page selects a page of n entries that are sorted by number. The token is the
// number of the next entry, so that deletions between two pages skip nothing.
func page(req interface {
	GetMaxEntries() int32
	GetStartingToken() string
}, n int, number func(int) int64,
) (from, to int, next string, err error) {
	if req.GetMaxEntries() < 0 {
		return 0, 0, "", status.Error(codes.InvalidArgument, "max_entries is negative")
	}
	if token := req.GetStartingToken(); token != "" {
		start, err := strconv.ParseInt(token, 10, 64)
		if err != nil {
			return 0, 0, "", status.Errorf(codes.Aborted, "starting_token %q is unknown", token)
		}
		for from < n && number(from) < start {
			from++
		}
	}
	to = n
	if size := int(req.GetMaxEntries()); size > 0 && from+size < n {
		to = from + size
		next = strconv.FormatInt(number(to), 10)
	}
	return from, to, next, nil
}

func (d *Driver) nodesOf(v *volume) []string {
	if !d.can(csipb.ControllerServiceCapability_RPC_LIST_VOLUMES_PUBLISHED_NODES) {
		return nil
	}
	return slices.Sorted(maps.Keys(v.published))
}
