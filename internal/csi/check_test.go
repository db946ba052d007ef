package csi

import (
	"slices"
	"strings"
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

func fromSnapshot(id string) *csipb.VolumeContentSource {
	return &csipb.VolumeContentSource{Type: &csipb.VolumeContentSource_Snapshot{Snapshot: &csipb.VolumeContentSource_SnapshotSource{SnapshotId: id}}}
}

func fromVolume(id string) *csipb.VolumeContentSource {
	return &csipb.VolumeContentSource{Type: &csipb.VolumeContentSource_Volume{Volume: &csipb.VolumeContentSource_VolumeSource{VolumeId: id}}}
}

// wantReason checks that the reason contains want; "" means that the response is
// valid.
func wantReason(t *testing.T, got, want string) {
	t.Helper()
	if (got == "") != (want == "") || !strings.Contains(got, want) {
		t.Errorf("got reason %q, want %q", got, want)
	}
}

func TestCheckTopology(t *testing.T) {
	at := func(all ...map[string]string) (list []*csipb.Topology) {
		for _, s := range all {
			list = append(list, &csipb.Topology{Segments: s})
		}
		return list
	}
	type keys = map[string]string
	tests := map[string]struct {
		requisite, accessible []*csipb.Topology
		want                  string
	}{
		"a volume in a requisite topology is valid":                 {at(keys{"zone": "a"}, keys{"zone": "b"}), at(keys{"zone": "b"}), ""},
		"a volume in another one is invalid":                        {at(keys{"zone": "a"}, keys{"zone": "b"}), at(keys{"zone": "c"}), "outside the requested topology"},
		"a volume in several others is invalid":                     {at(keys{"zone": "a"}), at(keys{"zone": "b"}, keys{"zone": "c"}), "outside the requested topology"},
		"a volume that another one reaches too is valid":            {at(keys{"zone": "a"}), at(keys{"zone": "c"}, keys{"zone": "a"}), ""},
		"a volume without topology is accessible from everywhere":   {at(keys{"zone": "a"}), nil, ""},
		"so is one with an empty topology":                          {at(keys{"zone": "a"}), at(keys{}), ""},
		"without a requirement a volume may be anywhere":            {nil, at(keys{"zone": "c"}), ""},
		"a volume in the requested zone, whatever the rack":         {at(keys{"zone": "a", "rack": "1"}), at(keys{"zone": "a"}), ""},
		"a volume in a rack of the requested zone":                  {at(keys{"zone": "a"}), at(keys{"zone": "a", "rack": "2"}), ""},
		"a volume in another rack of the requested zone is invalid": {at(keys{"zone": "a", "rack": "1"}), at(keys{"zone": "a", "rack": "2"}), "rack:2"},
		"keys of the driver's own cannot be compared":               {at(keys{"zone": "a"}), at(keys{"host": "h1"}), ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			req := &csipb.CreateVolumeRequest{AccessibilityRequirements: &csipb.TopologyRequirement{Requisite: tt.requisite}}
			wantReason(t, checkVolume(req, &csipb.Volume{VolumeId: "v", AccessibleTopology: tt.accessible}), tt.want)
		})
	}
}

func TestCheckVolume(t *testing.T) {
	tests := map[string]struct {
		change func(*csipb.CreateVolumeRequest, *csipb.Volume)
		want   string
	}{
		"a volume as requested is valid": {func(*csipb.CreateVolumeRequest, *csipb.Volume) {}, ""},
		"a volume without id is invalid": {func(_ *csipb.CreateVolumeRequest, v *csipb.Volume) {
			v.VolumeId = ""
		}, "no id"},
		"an unknown size is valid": {func(_ *csipb.CreateVolumeRequest, v *csipb.Volume) {
			v.CapacityBytes = 0
		}, ""},
		"a larger volume is valid": {func(_ *csipb.CreateVolumeRequest, v *csipb.Volume) {
			v.CapacityBytes = 15
		}, ""},
		"a volume that is too small is invalid": {func(_ *csipb.CreateVolumeRequest, v *csipb.Volume) {
			v.CapacityBytes = 9
		}, "less than the required 10"},
		"a volume above the limit is invalid": {func(_ *csipb.CreateVolumeRequest, v *csipb.Volume) {
			v.CapacityBytes = 21
		}, "more than the limit of 20"},
		"without a limit any larger size is valid": {func(r *csipb.CreateVolumeRequest, v *csipb.Volume) {
			r.CapacityRange.LimitBytes, v.CapacityBytes = 0, 1<<50
		}, ""},
		"a negative size is invalid": {func(r *csipb.CreateVolumeRequest, v *csipb.Volume) {
			r.CapacityRange, v.CapacityBytes = nil, -1
		}, "negative"},
		"the requested content source is valid": {func(r *csipb.CreateVolumeRequest, v *csipb.Volume) {
			r.VolumeContentSource, v.ContentSource = fromSnapshot("s"), fromSnapshot("s")
		}, ""},
		"a missing content source is invalid": {func(r *csipb.CreateVolumeRequest, _ *csipb.Volume) {
			r.VolumeContentSource = fromSnapshot("s")
		}, "may be empty"},
		"a content source under another id is valid": {func(r *csipb.CreateVolumeRequest, v *csipb.Volume) {
			r.VolumeContentSource, v.ContentSource = fromSnapshot("projects/P/global/snapshots/S"), fromSnapshot("1234567890")
		}, ""},
		"a volume source that is reported as a snapshot is valid": {func(r *csipb.CreateVolumeRequest, v *csipb.Volume) {
			r.VolumeContentSource, v.ContentSource = fromVolume("projects/P/zones/Z/disks/D"), fromSnapshot("1234567890")
		}, ""},
		"a content source that was not requested is ignored": {func(_ *csipb.CreateVolumeRequest, v *csipb.Volume) {
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
		"the required size is valid":        {10, ""},
		"a larger size is valid":            {20, ""},
		"no size is invalid":                {0, "no size"},
		"a smaller size is invalid":         {9, "less than the required 10"},
		"a size above the limit is invalid": {21, "more than the limit of 20"},
		"a negative size is invalid":        {-1, "negative"},
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
		"a complete snapshot is valid":          {func(*csipb.Snapshot) {}, ""},
		"an unknown size is valid":              {func(s *csipb.Snapshot) { s.SizeBytes = 0 }, ""},
		"a snapshot that is not ready is valid": {func(s *csipb.Snapshot) { s.ReadyToUse = false }, ""},
		"a snapshot without id is invalid":      {func(s *csipb.Snapshot) { s.SnapshotId = "" }, "no id"},
		"the source volume may be missing":      {func(s *csipb.Snapshot) { s.SourceVolumeId = "" }, ""},
		"the creation time may be missing":      {func(s *csipb.Snapshot) { s.CreationTime = nil }, ""},
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

func TestInvalidValuesBecomeUnknown(t *testing.T) {
	tests := map[string]struct {
		given, want *csipb.Snapshot
		deviation   string
	}{
		"a valid snapshot stays": {
			&csipb.Snapshot{SizeBytes: 10, CreationTime: &timestamppb.Timestamp{Seconds: 1}},
			&csipb.Snapshot{SizeBytes: 10, CreationTime: &timestamppb.Timestamp{Seconds: 1}}, "",
		},
		"a negative size becomes unknown": {&csipb.Snapshot{SizeBytes: -1}, &csipb.Snapshot{}, "negative"},
		"an invalid creation time becomes unknown": {
			&csipb.Snapshot{CreationTime: &timestamppb.Timestamp{Seconds: 1, Nanos: -1}}, &csipb.Snapshot{}, "creation time",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			what, _ := clearInvalid(tt.given)
			wantReason(t, what, tt.deviation)
			if !proto.Equal(tt.given, tt.want) {
				t.Errorf("it became %v, want %v", tt.given, tt.want)
			}
		})
	}
}

func TestNormalizeSources(t *testing.T) {
	of := func(sources ...string) (members []*csipb.Snapshot) {
		for _, source := range sources {
			members = append(members, &csipb.Snapshot{SourceVolumeId: source})
		}
		return members
	}
	tests := map[string]struct{ requested, given, want []string }{
		"the requested ids stay":                         {[]string{"a", "b"}, []string{"b", "a"}, []string{"b", "a"}},
		"the reported id is a part of the requested one": {[]string{"v1/array7/scsi", "v2/array7/scsi"}, []string{"v2", "v1"}, []string{"v2/array7/scsi", "v1/array7/scsi"}},
		"the requested id is a part of the reported one": {[]string{"v1", "v2"}, []string{"projects/P/v1", "projects/P/v2"}, []string{"v1", "v2"}},
		"the last id matches the last member":            {[]string{"a", "b"}, []string{"a", "17"}, []string{"a", "b"}},
		"a missing id matches the last member":           {[]string{"a", "b"}, []string{"", "a"}, []string{"b", "a"}},
		"two unknown ids match nothing":                  {[]string{"a", "b"}, []string{"17", "18"}, []string{"17", "18"}},
		"an id that matches two volumes matches neither": {[]string{"v1/a", "v1/b"}, []string{"v1", "x"}, []string{"v1", "x"}},
		"two missing ids match nothing":                  {[]string{"a", "b"}, []string{"", ""}, []string{"", ""}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			members, got := of(tt.given...), []string(nil)
			normalizeSources(tt.requested, members)
			for _, m := range members {
				got = append(got, m.GetSourceVolumeId())
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
