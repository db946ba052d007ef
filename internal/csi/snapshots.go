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
	answer, err := send(ctx, d, about{CreateSnapshot, snapshotNamed(req.GetName())}, d.controller.CreateSnapshot, req)
	if err != nil {
		return nil, err
	}
	snapshot := answer.GetSnapshot()
	if reason := checkSnapshot(snapshot); reason != "" {
		return nil, d.bad(CreateSnapshot, "", reason)
	}
	d.oddSnapshot(ctx, CreateSnapshot, snapshot)
	what, detail := oddSource(snapshot, req.GetSourceVolumeId())
	d.odd(ctx, CreateSnapshot, what, detail)
	return snapshot, nil
}

func (d *Driver) oddSnapshot(ctx context.Context, method Method, snapshot *csipb.Snapshot) {
	what, detail := tidy(snapshot)
	d.odd(ctx, method, what, detail)
}

// GetSnapshot reads one snapshot, with the call of that name where the driver
// has GET_SNAPSHOT and out of ListSnapshots where it has LIST_SNAPSHOTS. Code
// NotFound means that there is no such snapshot, Unimplemented that the driver
// has neither capability. It waits for other calls about the id.
func (d *Driver) GetSnapshot(ctx context.Context, req *csipb.GetSnapshotRequest) (*csipb.Snapshot, error) {
	info := d.Info()
	if !info.Has(csipb.ControllerServiceCapability_RPC_GET_SNAPSHOT) {
		return d.findSnapshot(ctx, req, info.Has(csipb.ControllerServiceCapability_RPC_LIST_SNAPSHOTS))
	}
	answer, err := send(ctx, d, about{GetSnapshot, snapshotID(req.GetSnapshotId())}, d.controller.GetSnapshot, req)
	if err != nil {
		return nil, err
	}
	return d.same(ctx, GetSnapshot, req, answer.GetSnapshot())
}

func (d *Driver) findSnapshot(ctx context.Context, req *csipb.GetSnapshotRequest, listed bool) (*csipb.Snapshot, error) {
	if !listed {
		return nil, d.fail(GetSnapshot, status.Error(codes.Unimplemented, "it announces neither GET_SNAPSHOT nor LIST_SNAPSHOTS"))
	}
	list := &csipb.ListSnapshotsRequest{SnapshotId: req.GetSnapshotId(), Secrets: req.GetSecrets()}
	answer, err := send(ctx, d, about{ListSnapshots, snapshotID(req.GetSnapshotId())}, d.controller.ListSnapshots, list)
	if err != nil {
		return nil, err
	}
	if len(answer.GetEntries()) == 0 {
		return nil, d.fail(ListSnapshots, status.Errorf(codes.NotFound, "snapshot %q is not in the list", req.GetSnapshotId()))
	}
	return d.same(ctx, ListSnapshots, req, pick(answer.GetEntries(), req.GetSnapshotId()))
}

// pick is the snapshot of an id in a list that was asked for it alone: the only
// one there, or the one with just that id if the driver lists others too.
func pick(entries []*csipb.ListSnapshotsResponse_Entry, id string) *csipb.Snapshot {
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

// same checks an answer about one snapshot. That its id is in other words is odd:
// who asks for one is answered about one.
func (d *Driver) same(ctx context.Context, method Method, req *csipb.GetSnapshotRequest, snapshot *csipb.Snapshot) (*csipb.Snapshot, error) {
	if snapshot == nil {
		return nil, d.bad(method, "", "the snapshot that was asked for is not in it")
	}
	if got := snapshot.GetSnapshotId(); got != req.GetSnapshotId() {
		d.odd(ctx, method, "it names a snapshot otherwise than the request did", fmt.Sprintf("asked for was %q, reported is %q", req.GetSnapshotId(), got))
	}
	d.oddSnapshot(ctx, method, snapshot)
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
		answer, err := send(ctx, d, about{method: ListSnapshots}, d.controller.ListSnapshots, page)
		return answer.GetEntries(), answer.GetNextToken(), err
	}
	check := func(e *csipb.ListSnapshotsResponse_Entry) error {
		if reason := checkSnapshot(e.GetSnapshot()); reason != "" {
			return d.bad(ListSnapshots, "", reason)
		}
		d.oddSnapshot(ctx, ListSnapshots, e.GetSnapshot())
		return nil
	}
	return walk(fetch, check, func() error { return d.bad(ListSnapshots, "", endlessPages) })
}

// Nanoseconds is a time in an answer as nanoseconds since 1970; 0 if the driver
// has not given one, which some do by leaving it out and some by a zero.
func Nanoseconds(t *timestamppb.Timestamp) int64 {
	if t == nil {
		return 0
	}
	return max(0, t.AsTime().UnixNano())
}
