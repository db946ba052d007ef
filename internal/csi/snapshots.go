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

// CreateSnapshot cuts the snapshot with the request's name, or finds it
// ("CreateSnapshot": idempotent by name). It waits for other calls with the
// same name. While ready_to_use is false the driver still works on it: ask
// again. An answer without id is a [InvalidResponse]. Drivers are in use that name the
// source volume in other words than they were asked in, or not at all, and that
// leave out the time, which is required ("Snapshot": creation_time); see
// [Nanoseconds].
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

func (d *Driver) normalizeSnapshot(ctx context.Context, method Method, snapshot *csipb.Snapshot) {
	what, detail := clearInvalid(snapshot)
	d.logDeviation(ctx, method, what, detail)
}

// GetSnapshot reads one snapshot, with the call of that name where the driver
// has GET_SNAPSHOT and out of ListSnapshots where it has LIST_SNAPSHOTS. Code
// NotFound means that there is no such snapshot, Unimplemented that the driver
// has neither capability. It waits for other calls about the id.
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

// selectEntry is the snapshot of an id in a list that was asked for it alone: the only
// one there, or the one with just that id if the driver lists others too.
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

// checkSameSnapshot checks an answer about one snapshot. That its id is in other words is odd:
// who asks for one is answered about one.
func (d *Driver) checkSameSnapshot(ctx context.Context, method Method, req *csipb.GetSnapshotRequest, snapshot *csipb.Snapshot) (*csipb.Snapshot, error) {
	if snapshot == nil {
		return nil, d.invalidResponse(method, "", "the snapshot that was asked for is not in it")
	}
	if got := snapshot.GetSnapshotId(); got != req.GetSnapshotId() {
		d.logDeviation(ctx, method, "it names a snapshot otherwise than the request did", fmt.Sprintf("asked for was %q, reported is %q", req.GetSnapshotId(), got))
	}
	d.normalizeSnapshot(ctx, method, snapshot)
	return snapshot, nil
}

// ListSnapshots walks through the snapshots that fit the request
// ("ListSnapshots", capability LIST_SNAPSHOTS), from the beginning: max_entries
// is the size of a page and starting_token is ignored. Everything else is as
// in [Driver.ListVolumes].
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

// Nanoseconds is a time in an answer as nanoseconds since 1970; 0 if the driver
// has not given one, which some do by leaving it out and some by a zero.
func Nanoseconds(t *timestamppb.Timestamp) int64 {
	if t == nil {
		return 0
	}
	return max(0, t.AsTime().UnixNano())
}
