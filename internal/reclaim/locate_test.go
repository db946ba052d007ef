package reclaim

import (
	"context"
	"errors"
	"testing"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/internal/topology"
)

// DeleteVolume may only be called if the driver reports that it has the volume.
func TestDriverHasVolume(t *testing.T) {
	const (
		get  = csipb.ControllerServiceCapability_RPC_GET_VOLUME
		list = csipb.ControllerServiceCapability_RPC_LIST_VOLUMES
	)
	fails := func(method csi.Method, code codes.Code) csitest.Hooks {
		return csitest.Hooks{Before: func(_ context.Context, called csi.Method, _ any) error {
			if called == method {
				return status.Error(code, "no")
			}
			return nil
		}}
	}
	knowsAll := csitest.Hooks{After: func(_ context.Context, _ csi.Method, _, resp any, err error) (any, error) {
		if answer, ok := resp.(*csipb.ControllerGetVolumeResponse); ok {
			answer.Volume.AccessibleTopology = []*csipb.Topology{{Segments: map[string]string{"host": "n2"}}}
		}
		return resp, err
	}}
	type can []csipb.ControllerServiceCapability_RPC_Type
	tests := map[string]struct {
		can    can
		hooks  csitest.Hooks
		absent bool // at the driver
		want   bool
		code   codes.Code // of the error; OK for none
		mute   bool       // the driver has no call that shows whether it has the volume
	}{
		"the driver gets the volume":                                             {can: can{get, list}, want: true},
		"the driver does not get the volume":                                     {can: can{get, list}, absent: true},
		"the driver lists the volume":                                            {can: can{list}, want: true},
		"the driver lists only other volumes":                                    {can: can{list}, absent: true},
		"ControllerGetVolume is not implemented but the driver lists the volume": {can: can{get, list}, hooks: fails(csi.ControllerGetVolume, codes.Unimplemented), want: true},
		"ControllerGetVolume is announced but not implemented":                   {can: can{get}, hooks: fails(csi.ControllerGetVolume, codes.Unimplemented), mute: true},
		"ListVolumes is announced but not implemented":                           {can: can{list}, hooks: fails(csi.ListVolumes, codes.Unimplemented), mute: true},
		"the driver has neither call":                                            {can: can{}, mute: true},
		"ControllerGetVolume fails":                                              {can: can{get, list}, hooks: fails(csi.ControllerGetVolume, codes.Internal), code: codes.Internal},
		"ListVolumes fails":                                                      {can: can{list}, hooks: fails(csi.ListVolumes, codes.Aborted), code: codes.Aborted},
		"the driver returns the topology of another node":                        {can: can{get}, hooks: knowsAll},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			fake := csitest.New(csitest.Options{
				Segments:   []map[string]string{{"host": "n1"}},
				Controller: append(tt.can, csipb.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME),
			})
			driver, err := csi.Connect(t.Context(), csi.Options{Address: fake.Serve(t)})
			if err != nil {
				t.Fatal(err)
			}
			defer driver.Close()
			if _, err := driver.WaitReady(t.Context()); err != nil {
				t.Fatal(err)
			}
			var handle string
			for _, name := range []string{"first", "other", "last"} {
				made, err := driver.CreateVolume(t.Context(), &csipb.CreateVolumeRequest{Name: name, VolumeCapabilities: []*csipb.VolumeCapability{{
					AccessMode: &csipb.VolumeCapability_AccessMode{Mode: csipb.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
					AccessType: &csipb.VolumeCapability_Block{Block: &csipb.VolumeCapability_BlockVolume{}},
				}}})
				if err != nil {
					t.Fatal(err)
				}
				handle = made.GetVolumeId()
			}
			if tt.absent {
				handle = "another"
			}
			fake.SetHooks(tt.hooks)
			r := &Reconciler{driver: driver, options: &Options{Segment: topology.Segment{"host": "n1"}}}
			got, err := r.driverHasVolume(t.Context(), handle)
			if got != tt.want || errors.Is(err, errCannotLocate) != tt.mute {
				t.Errorf("got %t, %v", got, err)
			}
			if !tt.mute && (err != nil) != (tt.code != codes.OK) || tt.code != codes.OK && csi.CodeOf(err) != tt.code {
				t.Errorf("got %v, want code %s", err, tt.code)
			}
		})
	}
}

func TestReleasedAt(t *testing.T) {
	s := releasedState()
	made, released := metav1.NewTime(time.Unix(1000, 0)), metav1.NewTime(time.Unix(2000, 0))
	s.volume.CreationTimestamp = made
	if got := releasedAt(s.volume); !got.Equal(made.Time) {
		t.Errorf("without a transition time: got %s", got)
	}
	s.volume.Status.LastPhaseTransitionTime = ptr.To(released)
	if got := releasedAt(s.volume); !got.Equal(released.Time) {
		t.Errorf("got %s", got)
	}
}
