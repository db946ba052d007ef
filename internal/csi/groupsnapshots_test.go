package csi_test

import (
	"errors"
	"testing"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
)

func TestCreateVolumeGroupSnapshotChecksTheResponse(t *testing.T) {
	tests := map[string]struct {
		change  func(*csipb.VolumeGroupSnapshot)
		bad     bool
		id      string
		members []string
	}{
		"a complete group is accepted":                        {func(*csipb.VolumeGroupSnapshot) {}, false, "", nil},
		"a member may have no group id":                       {func(g *csipb.VolumeGroupSnapshot) { g.Snapshots[0].GroupSnapshotId = "" }, false, "", nil},
		"the creation time may be missing":                    {func(g *csipb.VolumeGroupSnapshot) { g.CreationTime = nil }, false, "", nil},
		"a member may have another group id":                  {func(g *csipb.VolumeGroupSnapshot) { g.Snapshots[1].GroupSnapshotId = "other" }, false, "", nil},
		"a member may have an invalid size":                   {func(g *csipb.VolumeGroupSnapshot) { g.Snapshots[1].SizeBytes = -1 }, false, "", nil},
		"a member may have an invalid time":                   {func(g *csipb.VolumeGroupSnapshot) { g.Snapshots[1].CreationTime = noTime() }, false, "", nil},
		"a group may have an invalid time":                    {func(g *csipb.VolumeGroupSnapshot) { g.CreationTime = noTime() }, false, "", nil},
		"the last member may have no source":                  {func(g *csipb.VolumeGroupSnapshot) { g.Snapshots[1].SourceVolumeId = "" }, false, "", nil},
		"the last member may have an unknown source":          {func(g *csipb.VolumeGroupSnapshot) { g.Snapshots[1].SourceVolumeId = "17" }, false, "", nil},
		"there may be an additional member":                   {func(g *csipb.VolumeGroupSnapshot) { g.Snapshots = append(g.Snapshots, stray()) }, false, "", nil},
		"a group without an id is rejected, with its members": {func(g *csipb.VolumeGroupSnapshot) { g.GroupSnapshotId = "" }, true, "", []string{"snapshot-4", "snapshot-5"}},
		"a member without an id is rejected":                  {func(g *csipb.VolumeGroupSnapshot) { g.Snapshots[1].SnapshotId = "" }, true, "group-3", []string{"snapshot-4"}},
		"two members without a source are rejected": {func(g *csipb.VolumeGroupSnapshot) {
			g.Snapshots[0].SourceVolumeId, g.Snapshots[1].SourceVolumeId = "", ""
		}, true, "group-3", both()},
		"one snapshot for both volumes is rejected": {func(g *csipb.VolumeGroupSnapshot) { g.Snapshots[1].SnapshotId = "snapshot-4" }, true, "group-3", []string{"snapshot-4", "snapshot-4"}},
		"two snapshots of a volume are rejected":    {func(g *csipb.VolumeGroupSnapshot) { g.Snapshots = append(g.Snapshots, again()) }, true, "group-3", append(both(), "again")},
		"a missing volume is rejected":              {func(g *csipb.VolumeGroupSnapshot) { g.Snapshots = g.GetSnapshots()[:1] }, true, "group-3", []string{"snapshot-4"}},
		"no members are rejected":                   {func(g *csipb.VolumeGroupSnapshot) { g.Snapshots = nil }, true, "group-3", nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			fake := csitest.New(csitest.Options{})
			driver := connect(t, fake)
			req := &csipb.CreateVolumeGroupSnapshotRequest{Name: "g", SourceVolumeIds: createVolumes(t, driver, 2)}
			changeResponse(fake, csi.CreateVolumeGroupSnapshot, func(r *csipb.CreateVolumeGroupSnapshotResponse) { tt.change(r.GetGroupSnapshot()) })
			_, err := driver.CreateVolumeGroupSnapshot(t.Context(), req)
			if !tt.bad {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantInvalidResponse(t, err, tt.id) // the caller can delete it
			var bad *csi.InvalidResponse
			if errors.As(err, &bad); !cmp.Equal(tt.members, bad.MemberIDs) {
				t.Errorf("its members are %q, want %q", bad.MemberIDs, tt.members)
			}
		})
	}
}

func both() []string                 { return []string{"snapshot-4", "snapshot-5"} }
func noTime() *timestamppb.Timestamp { return &timestamppb.Timestamp{Seconds: 1, Nanos: -1} }
func stray() *csipb.Snapshot         { return &csipb.Snapshot{SnapshotId: "stray", SourceVolumeId: "volume-9"} }
func again() *csipb.Snapshot         { return &csipb.Snapshot{SnapshotId: "again", SourceVolumeId: "volume-1"} }

// A time that the driver does not know is nil, and not 1970.
func TestAnUnknownTimeIsNil(t *testing.T) {
	for name, at := range map[string]*timestamppb.Timestamp{
		"nothing": nil, "1970": {}, "the year 1": timestamppb.New(time.Time{}),
	} {
		t.Run(name, func(t *testing.T) {
			fake := csitest.New(csitest.Options{})
			driver := connect(t, fake)
			req := &csipb.CreateVolumeGroupSnapshotRequest{Name: "g", SourceVolumeIds: createVolumes(t, driver, 2)}
			changeResponse(fake, csi.CreateVolumeGroupSnapshot, func(r *csipb.CreateVolumeGroupSnapshotResponse) {
				r.GroupSnapshot.CreationTime, r.GroupSnapshot.Snapshots[0].CreationTime = at, at
			})
			got, err := driver.CreateVolumeGroupSnapshot(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			if got.GetCreationTime() != nil || got.GetSnapshots()[0].GetCreationTime() != nil || got.GetSnapshots()[1].GetCreationTime() == nil {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestGetVolumeGroupSnapshotChecksTheResponse(t *testing.T) {
	fake := csitest.New(csitest.Options{})
	driver := connect(t, fake)
	group, err := driver.CreateVolumeGroupSnapshot(t.Context(), &csipb.CreateVolumeGroupSnapshotRequest{Name: "g", SourceVolumeIds: createVolumes(t, driver, 2)})
	if err != nil {
		t.Fatal(err)
	}
	req := &csipb.GetVolumeGroupSnapshotRequest{GroupSnapshotId: group.GetGroupSnapshotId(), SnapshotIds: both()}
	if got, err := driver.GetVolumeGroupSnapshot(t.Context(), req); err != nil || len(got.GetSnapshots()) != 2 {
		t.Errorf("got %v, %v", got, err)
	}
	changeResponse(fake, csi.GetVolumeGroupSnapshot, func(r *csipb.GetVolumeGroupSnapshotResponse) {
		r.GroupSnapshot.GroupSnapshotId = "other"
		for _, member := range r.GetGroupSnapshot().GetSnapshots() {
			member.GroupSnapshotId = "other"
		}
	})
	if got, err := driver.GetVolumeGroupSnapshot(t.Context(), req); err != nil || len(got.GetSnapshots()) != 2 {
		t.Errorf("with another id: got %v, %v", got, err)
	}
	changeResponse(fake, csi.GetVolumeGroupSnapshot, func(r *csipb.GetVolumeGroupSnapshotResponse) { r.GroupSnapshot.GroupSnapshotId = "" })
	_, err = driver.GetVolumeGroupSnapshot(t.Context(), req)
	wantInvalidResponse(t, err, "")
}

// The series must have the same label value as the other metrics of the call.
func TestTheLimitOfGroupsHasTheNameOfTheirService(t *testing.T) {
	fake := csitest.New(csitest.Options{})
	driver := connect(t, fake)
	fake.FailNext(csi.CreateVolumeGroupSnapshot, codes.DeadlineExceeded, "too slow")
	if _, err := driver.CreateVolumeGroupSnapshot(t.Context(), &csipb.CreateVolumeGroupSnapshotRequest{Name: "late"}); err == nil {
		t.Fatal("it succeeded")
	}
	labels := map[string]string{"method_name": "/csi.v1.GroupController/CreateVolumeGroupSnapshot"}
	for _, family := range []string{"holdfast_csi_operations_limit", "holdfast_csi_operations_in_flight"} {
		if series(t, driver, family, labels) == nil {
			t.Errorf("%s has no series for it", family)
		}
	}
}
