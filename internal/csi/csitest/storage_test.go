package csitest

import (
	"math"
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func zone(name string) *csipb.Topology {
	return &csipb.Topology{Segments: map[string]string{"zone": name}}
}

func TestChooseSegment(t *testing.T) {
	all := Options{Capacity: 10, Segments: []map[string]string{{"zone": "a"}, {"zone": "b"}}}
	tests := map[string]struct {
		requested *csipb.TopologyRequirement
		taken     []string // zones without free capacity
		want      string   // zone, or "" if none has enough capacity
	}{
		"a request without requirements takes the first zone": {nil, nil, "a"},
		"a request without requirements skips a full zone":    {nil, []string{"a"}, "b"},
		"preferred zones come first":                          {&csipb.TopologyRequirement{Preferred: []*csipb.Topology{zone("b")}, Requisite: []*csipb.Topology{zone("a"), zone("b")}}, nil, "b"},
		"requisite zones come next":                           {&csipb.TopologyRequirement{Preferred: []*csipb.Topology{zone("b")}, Requisite: []*csipb.Topology{zone("a"), zone("b")}}, []string{"b"}, "a"},
		"other zones are not used":                            {&csipb.TopologyRequirement{Requisite: []*csipb.Topology{zone("a")}}, []string{"a"}, ""},
		"an unknown zone has no capacity":                     {&csipb.TopologyRequirement{Requisite: []*csipb.Topology{zone("c")}}, nil, ""},
		"all zones are full":                                  {nil, []string{"a", "b"}, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			client := dial(t, New(all))
			for _, taken := range tt.taken {
				req := volumeRequest("full-" + taken)
				req.AccessibilityRequirements = &csipb.TopologyRequirement{Requisite: []*csipb.Topology{zone(taken)}}
				if _, err := client.CreateVolume(t.Context(), req); err != nil {
					t.Fatal(err)
				}
			}
			req := volumeRequest("placed")
			req.AccessibilityRequirements = tt.requested
			resp, err := client.CreateVolume(t.Context(), req)
			if tt.want == "" {
				if status.Code(err) != codes.ResourceExhausted {
					t.Errorf("got %v, %v", resp, err)
				}
				return
			}
			if err != nil || resp.GetVolume().GetAccessibleTopology()[0].GetSegments()["zone"] != tt.want {
				t.Errorf("got %v, %v", resp, err)
			}
		})
	}
}

func TestCapacity(t *testing.T) {
	client := dial(t, New(Options{Capacity: 15, MaxVolumeSize: 12, Segments: []map[string]string{{"zone": "a"}, {"zone": "b"}}}))
	if _, err := client.CreateVolume(t.Context(), volumeRequest("a")); err != nil {
		t.Fatal(err)
	}
	for where, want := range map[*csipb.Topology]int64{nil: 20, zone("a"): 5, zone("b"): 15, zone("c"): 0} {
		resp, err := client.GetCapacity(t.Context(), &csipb.GetCapacityRequest{AccessibleTopology: where})
		if err != nil || resp.GetAvailableCapacity() != want || resp.GetMaximumVolumeSize().GetValue() != 12 {
			t.Errorf("%v: got %v, %v", where, resp, err)
		}
	}
	_, err := client.ControllerExpandVolume(t.Context(), &csipb.ControllerExpandVolumeRequest{
		VolumeId: "volume-1", CapacityRange: &csipb.CapacityRange{RequiredBytes: 13},
	})
	if status.Code(err) != codes.OutOfRange {
		t.Errorf("a volume grew beyond its limit: %v", err)
	}
	unlimited := dial(t, New(Options{Segments: []map[string]string{{"zone": "a"}, {"zone": "b"}}}))
	if resp, err := unlimited.GetCapacity(t.Context(), &csipb.GetCapacityRequest{}); err != nil || resp.GetAvailableCapacity() != math.MaxInt64 {
		t.Errorf("without a limit: got %v, %v", resp, err)
	}
}

func TestDefaultSizes(t *testing.T) {
	tests := map[string]struct {
		requested *csipb.CapacityRange
		source    bool
		want      int64
		code      codes.Code
	}{
		"without a size it is the default":  {nil, false, DefaultSize, codes.OK},
		"a limit is the size":               {&csipb.CapacityRange{LimitBytes: 7}, false, 7, codes.OK},
		"a copy has the size of its source": {nil, true, 10, codes.OK},
		"a copy cannot be smaller":          {&csipb.CapacityRange{RequiredBytes: 9}, true, 0, codes.OutOfRange},
		"a copy cannot be limited to less":  {&csipb.CapacityRange{LimitBytes: 9}, true, 0, codes.OutOfRange},
		"an invalid range is rejected":      {&csipb.CapacityRange{RequiredBytes: 9, LimitBytes: 8}, false, 0, codes.InvalidArgument},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			client := dial(t, New(Options{}))
			if _, err := client.CreateVolume(t.Context(), volumeRequest("source")); err != nil {
				t.Fatal(err)
			}
			req := volumeRequest("sized")
			req.CapacityRange = tt.requested
			if tt.source {
				req.VolumeContentSource = fromVolume("volume-1")
			}
			resp, err := client.CreateVolume(t.Context(), req)
			if status.Code(err) != tt.code || resp.GetVolume().GetCapacityBytes() != tt.want {
				t.Errorf("got %v, %v", resp, err)
			}
		})
	}
}

func TestARepeatedNameMustAskForTheSame(t *testing.T) {
	tests := map[string]struct {
		change func(*csipb.CreateVolumeRequest)
		code   codes.Code
	}{
		"the same":                 {func(*csipb.CreateVolumeRequest) {}, codes.OK},
		"other secrets":            {func(r *csipb.CreateVolumeRequest) { r.Secrets = map[string]string{"a": "b"} }, codes.OK},
		"less":                     {func(r *csipb.CreateVolumeRequest) { r.CapacityRange.RequiredBytes = 9 }, codes.OK},
		"more":                     {func(r *csipb.CreateVolumeRequest) { r.CapacityRange.RequiredBytes = 11 }, codes.AlreadyExists},
		"a limit below the size":   {func(r *csipb.CreateVolumeRequest) { r.CapacityRange = &csipb.CapacityRange{LimitBytes: 9} }, codes.AlreadyExists},
		"other parameters":         {func(r *csipb.CreateVolumeRequest) { r.Parameters = map[string]string{"a": "b"} }, codes.AlreadyExists},
		"other mutable parameters": {func(r *csipb.CreateVolumeRequest) { r.MutableParameters = map[string]string{"iops": "1"} }, codes.AlreadyExists},
		"another zone":             {func(r *csipb.CreateVolumeRequest) { r.AccessibilityRequirements.Requisite[0] = zone("b") }, codes.AlreadyExists},
		"no required zone":         {func(r *csipb.CreateVolumeRequest) { r.AccessibilityRequirements = nil }, codes.OK},
		"a content source":         {func(r *csipb.CreateVolumeRequest) { r.VolumeContentSource = fromVolume("volume-1") }, codes.AlreadyExists},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			client := dial(t, New(Options{Segments: []map[string]string{{"zone": "a"}, {"zone": "b"}}}))
			req := volumeRequest("a")
			req.AccessibilityRequirements = &csipb.TopologyRequirement{Requisite: []*csipb.Topology{zone("a")}}
			if _, err := client.CreateVolume(t.Context(), req); err != nil {
				t.Fatal(err)
			}
			tt.change(req)
			if _, err := client.CreateVolume(t.Context(), req); status.Code(err) != tt.code {
				t.Errorf("got %v, want %s", err, tt.code)
			}
		})
	}
}

func TestANameThatIsUsedAgainIsAnotherVolume(t *testing.T) {
	d := New(Options{})
	client := dial(t, d)
	var ids []string
	for range 2 {
		resp, err := client.CreateVolume(t.Context(), volumeRequest("a"))
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, resp.GetVolume().GetVolumeId())
		if _, err := client.DeleteVolume(t.Context(), &csipb.DeleteVolumeRequest{VolumeId: ids[len(ids)-1]}); err != nil {
			t.Fatal(err)
		}
	}
	if ids[0] == ids[1] {
		t.Errorf("both are %s: a stale delete would hit the second", ids[0])
	}
}

func TestSnapshotsBecomeReadyWhenAskedOften(t *testing.T) {
	client := dial(t, New(Options{SnapshotReadyAfter: 2}))
	if _, err := client.CreateVolume(t.Context(), volumeRequest("a")); err != nil {
		t.Fatal(err)
	}
	var got []bool
	for range 4 {
		resp, err := client.CreateSnapshot(t.Context(), &csipb.CreateSnapshotRequest{Name: "s", SourceVolumeId: "volume-1"})
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, resp.GetSnapshot().GetReadyToUse())
	}
	if diff := cmp.Diff([]bool{false, false, true, true}, got); diff != "" {
		t.Error(diff)
	}
}

func TestPagesSurviveDeletions(t *testing.T) {
	client := dial(t, New(Options{}))
	for _, name := range []string{"a", "b", "c", "d"} {
		if _, err := client.CreateVolume(t.Context(), volumeRequest(name)); err != nil {
			t.Fatal(err)
		}
	}
	first, err := client.ListVolumes(t.Context(), &csipb.ListVolumesRequest{MaxEntries: 2})
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"volume-1", "volume-3"} {
		if _, err := client.DeleteVolume(t.Context(), &csipb.DeleteVolumeRequest{VolumeId: id}); err != nil {
			t.Fatal(err)
		}
	}
	rest, err := client.ListVolumes(t.Context(), &csipb.ListVolumesRequest{StartingToken: first.GetNextToken()})
	if err != nil || len(rest.GetEntries()) != 1 || rest.GetEntries()[0].GetVolume().GetVolumeId() != "volume-4" {
		t.Errorf("got %v, %v", rest, err)
	}
}

func TestPublishing(t *testing.T) {
	publish := func(volume, node string, mode csipb.VolumeCapability_AccessMode_Mode) *csipb.ControllerPublishVolumeRequest {
		c := oneWriter()
		c.AccessMode.Mode = mode
		return &csipb.ControllerPublishVolumeRequest{VolumeId: volume, NodeId: node, VolumeCapability: c}
	}
	one, many := csipb.VolumeCapability_AccessMode_SINGLE_NODE_WRITER, csipb.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER
	tests := map[string]struct {
		before, then *csipb.ControllerPublishVolumeRequest
		code         codes.Code
	}{
		"the same again":                            {publish("volume-1", "node-1", one), publish("volume-1", "node-1", one), codes.OK},
		"with another mode":                         {publish("volume-1", "node-1", one), publish("volume-1", "node-1", many), codes.AlreadyExists},
		"on a second node, with a multi-node mode":  {publish("volume-1", "node-1", many), publish("volume-1", "node-2", many), codes.OK},
		"on a second node, with a single-node mode": {publish("volume-1", "node-1", one), publish("volume-1", "node-2", one), codes.FailedPrecondition},
		"more volumes than a node can have":         {publish("volume-1", "node-1", one), publish("volume-2", "node-1", one), codes.ResourceExhausted},
		"on an unknown node":                        {publish("volume-1", "node-1", one), publish("volume-2", "node-3", one), codes.NotFound},
		"an unknown volume":                         {publish("volume-1", "node-1", one), publish("volume-3", "node-1", one), codes.NotFound},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			client := dial(t, New(Options{MaxVolumesPerNode: 1, Nodes: []string{"node-2"}}))
			for _, name := range []string{"a", "b"} {
				if _, err := client.CreateVolume(t.Context(), volumeRequest(name)); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := client.ControllerPublishVolume(t.Context(), tt.before); err != nil {
				t.Fatal(err)
			}
			if _, err := client.ControllerPublishVolume(t.Context(), tt.then); status.Code(err) != tt.code {
				t.Errorf("got %v, want %s", err, tt.code)
			}
		})
	}
}

func TestExpandingAPublishedVolume(t *testing.T) {
	for offline, want := range map[bool]codes.Code{true: codes.FailedPrecondition, false: codes.OK} {
		client := dial(t, New(Options{OfflineExpansion: offline, AnyNode: true, NodeExpansion: true}))
		if _, err := client.CreateVolume(t.Context(), volumeRequest("a")); err != nil {
			t.Fatal(err)
		}
		req := &csipb.ControllerPublishVolumeRequest{VolumeId: "volume-1", NodeId: "somewhere", VolumeCapability: oneWriter()}
		if _, err := client.ControllerPublishVolume(t.Context(), req); err != nil {
			t.Fatal(err)
		}
		resp, err := client.ControllerExpandVolume(t.Context(), &csipb.ControllerExpandVolumeRequest{
			VolumeId: "volume-1", CapacityRange: &csipb.CapacityRange{RequiredBytes: 20}, VolumeCapability: oneWriter(),
		})
		if status.Code(err) != want || (err == nil && !resp.GetNodeExpansionRequired()) {
			t.Errorf("offline %v: got %v, %v", offline, resp, err)
		}
	}
}
