package csi_test

import (
	"errors"
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
)

const mib = 1 << 20

func TestCreateVolumeChecksTheResponse(t *testing.T) {
	fake := csitest.New(csitest.Options{})
	driver := connect(t, fake)
	changeResponse(fake, csi.CreateVolume, func(r *csipb.CreateVolumeResponse) { r.Volume.CapacityBytes = mib - 1 })
	_, err := driver.CreateVolume(t.Context(), volumeRequest("small", mib))
	wantInvalidResponse(t, err, fake.Volumes()[0].ID) // the caller can delete it

	changeResponse(fake, csi.CreateVolume, func(r *csipb.CreateVolumeResponse) { r.Volume.CapacityBytes = 0 })
	volume, err := driver.CreateVolume(t.Context(), volumeRequest("small", mib))
	if err != nil || volume.GetCapacityBytes() != mib {
		t.Errorf("an unknown size became %d, %v", volume.GetCapacityBytes(), err)
	}
}

func TestAMissingContentSourceIsRejected(t *testing.T) {
	fake := csitest.New(csitest.Options{})
	driver := connect(t, fake)
	req := volumeRequest("copy", mib)
	req.VolumeContentSource = &csipb.VolumeContentSource{Type: &csipb.VolumeContentSource_Volume{
		Volume: &csipb.VolumeContentSource_VolumeSource{VolumeId: createVolumes(t, driver, 1)[0]},
	}}
	changeResponse(fake, csi.CreateVolume, func(r *csipb.CreateVolumeResponse) { r.Volume.ContentSource = nil })
	_, err := driver.CreateVolume(t.Context(), req)
	wantInvalidResponse(t, err, fake.Volumes()[1].ID)
}

func TestExpandChecksTheResponse(t *testing.T) {
	fake := csitest.New(csitest.Options{})
	driver := connect(t, fake)
	req := &csipb.ControllerExpandVolumeRequest{VolumeId: createVolumes(t, driver, 1)[0], CapacityRange: &csipb.CapacityRange{RequiredBytes: 2 * mib}}
	for _, bytes := range []int64{0, 2*mib - 1} {
		changeResponse(fake, csi.ControllerExpandVolume, func(r *csipb.ControllerExpandVolumeResponse) { r.CapacityBytes = bytes })
		_, err := driver.ControllerExpandVolume(t.Context(), req)
		wantInvalidResponse(t, err, req.GetVolumeId())
	}
}

func TestGetVolumeChecksTheResponse(t *testing.T) {
	fake := csitest.New(csitest.Options{})
	driver := connect(t, fake)
	id := createVolumes(t, driver, 1)[0]
	if got, err := driver.ControllerGetVolume(t.Context(), id); err != nil || got.GetVolume().GetVolumeId() != id {
		t.Errorf("got %v, %v", got, err)
	}
	changeResponse(fake, csi.ControllerGetVolume, func(r *csipb.ControllerGetVolumeResponse) { r.Volume.VolumeId = "projects/p/" + id })
	if got, err := driver.ControllerGetVolume(t.Context(), id); err != nil || got.GetVolume() == nil {
		t.Errorf("with another id: got %v, %v", got, err)
	}
	changeResponse(fake, csi.ControllerGetVolume, func(r *csipb.ControllerGetVolumeResponse) { r.Volume.VolumeId = "" })
	_, err := driver.ControllerGetVolume(t.Context(), id)
	wantInvalidResponse(t, err, "")
}

func TestGetCapacityChecksTheResponse(t *testing.T) {
	fake := csitest.New(csitest.Options{Capacity: 5 * mib})
	driver := connect(t, fake)
	if got, err := driver.GetCapacity(t.Context(), &csipb.GetCapacityRequest{}); err != nil || got.GetAvailableCapacity() != 5*mib {
		t.Errorf("got %v, %v", got, err)
	}
	changeResponse(fake, csi.GetCapacity, func(r *csipb.GetCapacityResponse) { r.AvailableCapacity = -1 })
	_, err := driver.GetCapacity(t.Context(), &csipb.GetCapacityRequest{})
	wantInvalidResponse(t, err, "")
}

func TestPublishReturnsThePublishContext(t *testing.T) {
	fake := csitest.New(csitest.Options{})
	driver := connect(t, fake)
	id := createVolumes(t, driver, 1)[0]
	got, err := driver.ControllerPublishVolume(t.Context(), &csipb.ControllerPublishVolumeRequest{
		VolumeId: id, NodeId: "node-1", VolumeCapability: oneWriter(),
	})
	if err != nil || got["device"] != "/dev/"+id {
		t.Errorf("got %v, %v", got, err)
	}
	if err := driver.WithPrecondition(csi.Unconditional).DeleteVolume(t.Context(), &csipb.DeleteVolumeRequest{VolumeId: id}); csi.OutcomeOf(err) != csi.InUse {
		t.Errorf("a published volume was deleted: %v", err)
	}
	if err := driver.WithPrecondition(csi.Unconditional).ControllerUnpublishVolume(t.Context(), &csipb.ControllerUnpublishVolumeRequest{VolumeId: id, NodeId: "node-1"}); err != nil {
		t.Error(err)
	}
}

// The id is enough to follow and delete a snapshot. PowerStore responds with only the
// first part of the source volume's id.
func TestCreateSnapshotAcceptsDeviations(t *testing.T) {
	fake := csitest.New(csitest.Options{})
	driver := connect(t, fake)
	req := &csipb.CreateSnapshotRequest{Name: "s", SourceVolumeId: createVolumes(t, driver, 1)[0]}
	changes := map[string]func(*csipb.CreateSnapshotResponse){
		"no source":      func(r *csipb.CreateSnapshotResponse) { r.Snapshot.SourceVolumeId = "" },
		"another source": func(r *csipb.CreateSnapshotResponse) { r.Snapshot.SourceVolumeId = "other" },
		"no valid time":  func(r *csipb.CreateSnapshotResponse) { r.Snapshot.CreationTime.Nanos = -1 },
		"no size":        func(r *csipb.CreateSnapshotResponse) { r.Snapshot.SizeBytes = -1 },
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			changeResponse(fake, csi.CreateSnapshot, change)
			got, err := driver.CreateSnapshot(t.Context(), req)
			if err != nil || got.GetSnapshotId() != fake.Snapshots()[0].ID || got.GetSizeBytes() < 0 || csi.Nanoseconds(got.GetCreationTime()) < 0 {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
	changeResponse(fake, csi.CreateSnapshot, func(r *csipb.CreateSnapshotResponse) { r.Snapshot.SnapshotId = "" })
	_, err := driver.CreateSnapshot(t.Context(), req)
	wantInvalidResponse(t, err, "")
}

func TestGetSnapshotFallsBackToListSnapshots(t *testing.T) {
	get, list := csipb.ControllerServiceCapability_RPC_GET_SNAPSHOT, csipb.ControllerServiceCapability_RPC_LIST_SNAPSHOTS
	tests := map[string]struct {
		can          []csipb.ControllerServiceCapability_RPC_Type
		gets, lists  int // calls
		code, absent codes.Code
	}{
		"GetSnapshot is preferred":       {[]csipb.ControllerServiceCapability_RPC_Type{get, list}, 2, 0, codes.OK, codes.NotFound},
		"ListSnapshots is the fallback":  {[]csipb.ControllerServiceCapability_RPC_Type{list}, 0, 2, codes.OK, codes.NotFound},
		"without both nothing is called": {nil, 0, 0, codes.Unimplemented, codes.Unimplemented},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			fake := csitest.New(csitest.Options{Controller: append(tt.can,
				csipb.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME, csipb.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT)})
			driver := connectReady(t, fake)
			made, err := driver.CreateSnapshot(t.Context(), &csipb.CreateSnapshotRequest{Name: "s", SourceVolumeId: createVolumes(t, driver, 1)[0]})
			if err != nil {
				t.Fatal(err)
			}
			got, err := driver.GetSnapshot(t.Context(), &csipb.GetSnapshotRequest{SnapshotId: made.GetSnapshotId()})
			if status.Code(err) != tt.code || (err == nil && got.GetSnapshotId() != made.GetSnapshotId()) {
				t.Errorf("got %v, %v", got, err)
			}
			_, err = driver.GetSnapshot(t.Context(), &csipb.GetSnapshotRequest{SnapshotId: "none"})
			if status.Code(err) != tt.absent || csi.OutcomeOf(err) != csi.Failed {
				t.Errorf("a missing snapshot: got %v", err)
			}
			if gets, lists := fake.Calls(csi.GetSnapshot), fake.Calls(csi.ListSnapshots); gets != tt.gets || lists != tt.lists {
				t.Errorf("%d calls of GetSnapshot and %d of ListSnapshots", gets, lists)
			}
		})
	}
}

// The response to a request for one snapshot may have another id. Only a list of
// several must have the requested one.
func TestGetSnapshotAcceptsAnotherSpellingOfTheID(t *testing.T) {
	entry := func(id string) *csipb.ListSnapshotsResponse_Entry {
		return &csipb.ListSnapshotsResponse_Entry{Snapshot: &csipb.Snapshot{SnapshotId: id, ReadyToUse: true}}
	}
	tests := map[string]struct {
		listed []*csipb.ListSnapshotsResponse_Entry
		bad    bool
	}{
		"the requested one":              {[]*csipb.ListSnapshotsResponse_Entry{entry("asked")}, false},
		"one with another id":            {[]*csipb.ListSnapshotsResponse_Entry{entry("123")}, false},
		"the requested one among others": {[]*csipb.ListSnapshotsResponse_Entry{entry("123"), entry("asked")}, false},
		"others only":                    {[]*csipb.ListSnapshotsResponse_Entry{entry("123"), entry("456")}, true},
		"an empty entry":                 {[]*csipb.ListSnapshotsResponse_Entry{{}}, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			fake := csitest.New(csitest.Options{Controller: []csipb.ControllerServiceCapability_RPC_Type{csipb.ControllerServiceCapability_RPC_LIST_SNAPSHOTS}})
			driver := connectReady(t, fake)
			changeResponse(fake, csi.ListSnapshots, func(r *csipb.ListSnapshotsResponse) { r.Entries = tt.listed })
			got, err := driver.GetSnapshot(t.Context(), &csipb.GetSnapshotRequest{SnapshotId: "asked"})
			if tt.bad {
				wantInvalidResponse(t, err, "")
			} else if err != nil || !got.GetReadyToUse() {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

func TestListVolumesReadsAllPages(t *testing.T) {
	fake := csitest.New(csitest.Options{})
	driver := connect(t, fake)
	want := createVolumes(t, driver, 5)
	var got []string
	for entry, err := range driver.ListVolumes(t.Context(), 2) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, entry.GetVolume().GetVolumeId())
	}
	if len(got) != len(want) || got[0] != want[0] || got[4] != want[4] {
		t.Errorf("got %q, want %q", got, want)
	}
	if pages := fake.Calls(csi.ListVolumes); pages != 3 {
		t.Errorf("%d pages of 2 were read for 5 volumes", pages)
	}
}

func TestAListThatIsLeftEarlyReadsNoFurtherPage(t *testing.T) {
	fake := csitest.New(csitest.Options{})
	driver := connect(t, fake)
	createVolumes(t, driver, 3)
	for _, err := range driver.ListVolumes(t.Context(), 1) {
		if err != nil {
			t.Fatal(err)
		}
		break
	}
	if pages := fake.Calls(csi.ListVolumes); pages != 1 {
		t.Errorf("%d pages were read", pages)
	}
}

func TestAListEndsWithTheFirstError(t *testing.T) {
	tests := map[string]struct {
		prepare func(*csitest.Driver)
		entries int // before the error
		bad     bool
	}{
		"a page fails": {func(fake *csitest.Driver) {
			fake.FailNext(csi.ListVolumes, codes.Aborted, "the token has expired")
		}, 0, false},
		"a page leads back to itself": {func(fake *csitest.Driver) {
			changeResponse(fake, csi.ListVolumes, func(r *csipb.ListVolumesResponse) { r.NextToken = "2" })
		}, 4, true}, // two pages of two: the second begins with volume number 2
		"a page leads back to an earlier one": {func(fake *csitest.Driver) {
			pages := 0
			changeResponse(fake, csi.ListVolumes, func(r *csipb.ListVolumesResponse) { pages++; r.NextToken = []string{"2", "1"}[pages%2] })
		}, 6, true},
		"an entry has no id": {func(fake *csitest.Driver) {
			changeResponse(fake, csi.ListVolumes, func(r *csipb.ListVolumesResponse) { r.Entries[0].Volume.VolumeId = "" })
		}, 0, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			fake := csitest.New(csitest.Options{})
			driver := connect(t, fake)
			createVolumes(t, driver, 3)
			tt.prepare(fake)
			entries, failures := 0, []error(nil)
			for _, err := range driver.ListVolumes(t.Context(), 2) {
				if err != nil {
					failures = append(failures, err)
					continue
				}
				if entries++; entries > 100 {
					t.Fatal("the list has no end")
				}
			}
			if len(failures) != 1 {
				t.Fatalf("got errors %v", failures)
			}
			var bad *csi.InvalidResponse
			if errors.As(failures[0], &bad) != tt.bad {
				t.Errorf("got %v", failures[0])
			}
			if entries != tt.entries {
				t.Errorf("%d entries came before it", entries)
			}
		})
	}
}

func TestListSnapshotsReadsAllPagesAndChecksThem(t *testing.T) {
	fake := csitest.New(csitest.Options{})
	driver := connect(t, fake)
	source := createVolumes(t, driver, 1)[0]
	for _, name := range []string{"a", "b", "c"} {
		if _, err := driver.CreateSnapshot(t.Context(), &csipb.CreateSnapshotRequest{Name: name, SourceVolumeId: source}); err != nil {
			t.Fatal(err)
		}
	}
	list := func() (seen int, failure error) {
		for _, err := range driver.ListSnapshots(t.Context(), &csipb.ListSnapshotsRequest{SourceVolumeId: source, MaxEntries: 2}) {
			if err != nil {
				return seen, err
			}
			seen++
		}
		return seen, nil
	}
	if seen, err := list(); seen != 3 || err != nil {
		t.Errorf("got %d, %v", seen, err)
	}
	changeResponse(fake, csi.ListSnapshots, func(r *csipb.ListSnapshotsResponse) { r.Entries[0].Snapshot.SourceVolumeId = "" })
	if seen, err := list(); seen != 3 || err != nil {
		t.Errorf("with a snapshot without a source: got %d, %v", seen, err)
	}
	changeResponse(fake, csi.ListSnapshots, func(r *csipb.ListSnapshotsResponse) { r.Entries[0].Snapshot.SnapshotId = "" })
	_, err := list()
	wantInvalidResponse(t, err, "")
}
