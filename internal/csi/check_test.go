package csi

import (
	"strings"
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/types/known/timestamppb"
)

func fromSnapshot(id string) *csipb.VolumeContentSource {
	return &csipb.VolumeContentSource{Type: &csipb.VolumeContentSource_Snapshot{Snapshot: &csipb.VolumeContentSource_SnapshotSource{SnapshotId: id}}}
}

func fromVolume(id string) *csipb.VolumeContentSource {
	return &csipb.VolumeContentSource{Type: &csipb.VolumeContentSource_Volume{Volume: &csipb.VolumeContentSource_VolumeSource{VolumeId: id}}}
}

// wantReason compares a reason with a part of it; empty means that the answer
// is good.
func wantReason(t *testing.T, got, want string) {
	t.Helper()
	if (got == "") != (want == "") || !strings.Contains(got, want) {
		t.Errorf("got reason %q, want %q", got, want)
	}
}

func TestCheckVolume(t *testing.T) {
	tests := map[string]struct {
		change func(*csipb.CreateVolumeRequest, *csipb.Volume)
		want   string
	}{
		"what was asked for is good": {func(*csipb.CreateVolumeRequest, *csipb.Volume) {}, ""},
		"a volume without id cannot be found again": {func(_ *csipb.CreateVolumeRequest, v *csipb.Volume) {
			v.VolumeId = ""
		}, "no id"},
		"an unknown size is good": {func(_ *csipb.CreateVolumeRequest, v *csipb.Volume) {
			v.CapacityBytes = 0
		}, ""},
		"a larger volume is good": {func(_ *csipb.CreateVolumeRequest, v *csipb.Volume) {
			v.CapacityBytes = 15
		}, ""},
		"a volume that is too small is not": {func(_ *csipb.CreateVolumeRequest, v *csipb.Volume) {
			v.CapacityBytes = 9
		}, "less than the required 10"},
		"a volume above the limit is not": {func(_ *csipb.CreateVolumeRequest, v *csipb.Volume) {
			v.CapacityBytes = 21
		}, "more than the limit of 20"},
		"without a limit any larger size is good": {func(r *csipb.CreateVolumeRequest, v *csipb.Volume) {
			r.CapacityRange.LimitBytes, v.CapacityBytes = 0, 1<<50
		}, ""},
		"a negative size is no size": {func(r *csipb.CreateVolumeRequest, v *csipb.Volume) {
			r.CapacityRange, v.CapacityBytes = nil, -1
		}, "negative"},
		"content that was asked for and is there is good": {func(r *csipb.CreateVolumeRequest, v *csipb.Volume) {
			r.VolumeContentSource, v.ContentSource = fromSnapshot("s"), fromSnapshot("s")
		}, ""},
		"content that was asked for and is not there is not": {func(r *csipb.CreateVolumeRequest, _ *csipb.Volume) {
			r.VolumeContentSource = fromSnapshot("s")
		}, "may be empty"},
		"content of another snapshot is not": {func(r *csipb.CreateVolumeRequest, v *csipb.Volume) {
			r.VolumeContentSource, v.ContentSource = fromSnapshot("s"), fromSnapshot("t")
		}, "other content"},
		"content of a volume instead of a snapshot is not": {func(r *csipb.CreateVolumeRequest, v *csipb.Volume) {
			r.VolumeContentSource, v.ContentSource = fromSnapshot("s"), fromVolume("s")
		}, "other content"},
		"content that nobody asked for is the driver's business": {func(_ *csipb.CreateVolumeRequest, v *csipb.Volume) {
			v.ContentSource = fromSnapshot("image")
		}, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			req := &csipb.CreateVolumeRequest{CapacityRange: &csipb.CapacityRange{RequiredBytes: 10, LimitBytes: 20}}
			volume := &csipb.Volume{VolumeId: "v", CapacityBytes: 10}
			tt.change(req, volume)
			wantReason(t, checkVolume(req, volume), tt.want)
		})
	}
	wantReason(t, checkVolume(&csipb.CreateVolumeRequest{}, nil), "no id")
}

func TestCheckExpansion(t *testing.T) {
	req := &csipb.ControllerExpandVolumeRequest{CapacityRange: &csipb.CapacityRange{RequiredBytes: 10, LimitBytes: 20}}
	tests := map[string]struct {
		bytes int64
		want  string
	}{
		"the required size is good":                   {10, ""},
		"a larger size is good":                       {20, ""},
		"no size would make the claim shrink to zero": {0, "no size"},
		"a smaller size is not what was asked for":    {9, "less than the required 10"},
		"a size above the limit is neither":           {21, "more than the limit of 20"},
		"a negative size is no size":                  {-1, "negative"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			wantReason(t, checkExpansion(req, &csipb.ControllerExpandVolumeResponse{CapacityBytes: tt.bytes}), tt.want)
		})
	}
}

func TestCheckSnapshot(t *testing.T) {
	tests := map[string]struct {
		change func(*csipb.Snapshot)
		want   string
	}{
		"a whole answer is good":                       {func(*csipb.Snapshot) {}, ""},
		"an unknown size is good":                      {func(s *csipb.Snapshot) { s.SizeBytes = 0 }, ""},
		"one that is not ready is good":                {func(s *csipb.Snapshot) { s.ReadyToUse = false }, ""},
		"a snapshot without id cannot be found again":  {func(s *csipb.Snapshot) { s.SnapshotId = "" }, "no id"},
		"a snapshot of nothing is none":                {func(s *csipb.Snapshot) { s.SourceVolumeId = "" }, "of which volume"},
		"a snapshot may leave out when it was made":    {func(s *csipb.Snapshot) { s.CreationTime = nil }, ""},
		"a snapshot of an impossible time has no time": {func(s *csipb.Snapshot) { s.CreationTime.Nanos = -1 }, "no valid time"},
		"a negative size is no size":                   {func(s *csipb.Snapshot) { s.SizeBytes = -1 }, "negative"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			snapshot := &csipb.Snapshot{
				SnapshotId: "s", SourceVolumeId: "v", SizeBytes: 10, ReadyToUse: true,
				CreationTime: &timestamppb.Timestamp{Seconds: 1_800_000_000},
			}
			tt.change(snapshot)
			wantReason(t, checkSnapshot(snapshot), tt.want)
		})
	}
	wantReason(t, checkSnapshot(nil), "no id")
}
