package csi

import (
	"context"
	"fmt"
	"iter"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// CreateSnapshot creates the snapshot with the request's name, or finds it
// ("CreateSnapshot": idempotent by name). It waits for other calls with the same
// name. While ready_to_use is false the driver is still working on it, and the
// caller repeats the request. A response without id is an [InvalidResponse]. Some
// drivers report the source volume under another id or not at all, or omit the
// creation time, which is required ("Snapshot": creation_time); see [Nanoseconds].
func (d *Driver) CreateSnapshot(ctx context.Context, req *csipb.CreateSnapshotRequest) (*csipb.Snapshot, error) {
	resp, err := send(ctx, d, operation{CreateSnapshot, snapshotNamed(req.GetName())}, d.controller.CreateSnapshot, req)
	if err != nil {
		return nil, err
	}
	snapshot := resp.GetSnapshot()
	if reason := checkSnapshot(snapshot); reason != "" {
		return nil, d.invalidResponse(CreateSnapshot, "", reason)
	}
	d.normalizeSnapshot(ctx, CreateSnapshot, snapshot)
	what, detail := sourceDeviation(snapshot, req.GetSourceVolumeId())
	d.logDeviation(ctx, CreateSnapshot, what, detail)
	return snapshot, nil
}

// normalizeSnapshot logs the deviations of a snapshot and sets invalid values to
// unknown.
func (d *Driver) normalizeSnapshot(ctx context.Context, method Method, snapshot *csipb.Snapshot) {
	what, detail := clearInvalid(snapshot)
	d.logDeviation(ctx, method, what, detail)
}

// GetSnapshot reads one snapshot, with the call GetSnapshot if the driver has
// GET_SNAPSHOT, and with ListSnapshots if it has LIST_SNAPSHOTS. Code NotFound
// means that the snapshot does not exist, Unimplemented that the driver has neither
// capability. It waits for other calls about the id.
func (d *Driver) GetSnapshot(ctx context.Context, req *csipb.GetSnapshotRequest) (*csipb.Snapshot, error) {
	info := d.Info()
	if !info.Has(csipb.ControllerServiceCapability_RPC_GET_SNAPSHOT) {
		return d.getSnapshotFromList(ctx, req, info.Has(csipb.ControllerServiceCapability_RPC_LIST_SNAPSHOTS))
	}
	resp, err := send(ctx, d, operation{GetSnapshot, snapshotID(req.GetSnapshotId())}, d.controller.GetSnapshot, req)
	if err != nil {
		return nil, err
	}
	return d.checkSameSnapshot(ctx, GetSnapshot, req, resp.GetSnapshot())
}

func (d *Driver) getSnapshotFromList(ctx context.Context, req *csipb.GetSnapshotRequest, listed bool) (*csipb.Snapshot, error) {
	if !listed {
		return nil, d.fail(GetSnapshot, status.Error(codes.Unimplemented, "it announces neither GET_SNAPSHOT nor LIST_SNAPSHOTS"))
	}
	list := &csipb.ListSnapshotsRequest{SnapshotId: req.GetSnapshotId(), Secrets: req.GetSecrets()}
	resp, err := send(ctx, d, operation{ListSnapshots, snapshotID(req.GetSnapshotId())}, d.controller.ListSnapshots, list)
	if err != nil {
		return nil, err
	}
	if len(resp.GetEntries()) == 0 {
		return nil, d.fail(ListSnapshots, status.Errorf(codes.NotFound, "snapshot %q is not in the list", req.GetSnapshotId()))
	}
	return d.checkSameSnapshot(ctx, ListSnapshots, req, selectEntry(resp.GetEntries(), req.GetSnapshotId()))
}

// selectEntry returns the snapshot of an id from a list that was requested for this
// id: the only entry, or the one with this id if the driver ignores the filter.
func selectEntry(entries []*csipb.ListSnapshotsResponse_Entry, id string) *csipb.Snapshot {
	if len(entries) == 1 {
		return entries[0].GetSnapshot()
	}
	for _, e := range entries {
		if e.GetSnapshot().GetSnapshotId() == id {
			return e.GetSnapshot()
		}
	}
	return nil
}

// checkSameSnapshot checks the response to a request for one snapshot. Another id
// is only a deviation: the request was for one snapshot, so the response is about
// it.
func (d *Driver) checkSameSnapshot(ctx context.Context, method Method, req *csipb.GetSnapshotRequest, snapshot *csipb.Snapshot) (*csipb.Snapshot, error) {
	if snapshot == nil {
		return nil, d.invalidResponse(method, "", "the requested snapshot is missing")
	}
	if got := snapshot.GetSnapshotId(); got != req.GetSnapshotId() {
		d.logDeviation(ctx, method, "a snapshot has another id than in the request", fmt.Sprintf("requested %q, reported %q", req.GetSnapshotId(), got))
	}
	d.normalizeSnapshot(ctx, method, snapshot)
	return snapshot, nil
}

// ListSnapshots iterates over the snapshots that match the request
// ("ListSnapshots", capability LIST_SNAPSHOTS), from the beginning: max_entries is
// the page size, and starting_token is ignored. Errors are as in
// [Driver.ListVolumes].
func (d *Driver) ListSnapshots(ctx context.Context, req *csipb.ListSnapshotsRequest) iter.Seq2[*csipb.ListSnapshotsResponse_Entry, error] {
	fetch := func(token string) ([]*csipb.ListSnapshotsResponse_Entry, string, error) {
		page := &csipb.ListSnapshotsRequest{
			MaxEntries: req.GetMaxEntries(), StartingToken: token,
			SourceVolumeId: req.GetSourceVolumeId(), SnapshotId: req.GetSnapshotId(), Secrets: req.GetSecrets(),
		}
		resp, err := send(ctx, d, operation{method: ListSnapshots}, d.controller.ListSnapshots, page)
		return resp.GetEntries(), resp.GetNextToken(), err
	}
	check := func(e *csipb.ListSnapshotsResponse_Entry) error {
		if reason := checkSnapshot(e.GetSnapshot()); reason != "" {
			return d.invalidResponse(ListSnapshots, "", reason)
		}
		d.normalizeSnapshot(ctx, ListSnapshots, e.GetSnapshot())
		return nil
	}
	return paginate(fetch, check, func() error { return d.invalidResponse(ListSnapshots, "", pageLoop) })
}

// Nanoseconds converts a time in a response to nanoseconds since 1970. It is 0 if
// the driver does not report the time; some drivers omit it, and some send a zero.
func Nanoseconds(t *timestamppb.Timestamp) int64 {
	if t == nil {
		return 0
	}
	return max(0, t.AsTime().UnixNano())
}
