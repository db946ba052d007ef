package csi

import (
	"reflect"
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
)

func TestTargetOf(t *testing.T) {
	fromSnapshot := &csipb.VolumeContentSource{Type: &csipb.VolumeContentSource_Snapshot{Snapshot: &csipb.VolumeContentSource_SnapshotSource{SnapshotId: "s"}}}
	fromVolume := &csipb.VolumeContentSource{Type: &csipb.VolumeContentSource_Volume{Volume: &csipb.VolumeContentSource_VolumeSource{VolumeId: "v"}}}
	class := map[string]string{"type": "fast", "tier": "1"}
	tests := map[string]struct {
		request any
		want    []string
	}{
		"an attachment is about its node":   {&csipb.ControllerPublishVolumeRequest{VolumeId: "v", NodeId: "n"}, []string{"node n"}},
		"a detachment is about its node":    {&csipb.ControllerUnpublishVolumeRequest{VolumeId: "v", NodeId: "n"}, []string{"node n"}},
		"a restore is about its snapshot":   {&csipb.CreateVolumeRequest{Name: "a", Parameters: class, VolumeContentSource: fromSnapshot}, []string{"snapshots", "s"}},
		"a clone is about its source":       {&csipb.CreateVolumeRequest{Name: "a", Parameters: class, VolumeContentSource: fromVolume}, []string{"clones", "v"}},
		"a plain volume is about its class": {&csipb.CreateVolumeRequest{Name: "a", Parameters: class}, []string{`class "tier"="1" "type"="fast"`}},
		"the claim's own parameters do not count": {&csipb.CreateVolumeRequest{Name: "a", Parameters: map[string]string{
			"type": "fast", "csi.storage.k8s.io/pvc/name": "data",
		}}, []string{`class "type"="fast"`}},
		"a deletion is about the driver":   {&csipb.DeleteVolumeRequest{VolumeId: "v"}, nil},
		"an expansion is about the driver": {&csipb.ControllerExpandVolumeRequest{VolumeId: "v"}, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, about := range targetOf(tt.request) {
				got = append(got, about.key)
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
