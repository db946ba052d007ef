package csi_test

import (
	"context"
	"strings"
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
)

func TestDescribe(t *testing.T) {
	fake := csitest.New(csitest.Options{
		Name: "fake.example.com", Version: "1.2.3", OfflineExpansion: true, Segments: []map[string]string{{"zone": "a"}},
		Controller: []csipb.ControllerServiceCapability_RPC_Type{
			csipb.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME, csipb.ControllerServiceCapability_RPC_EXPAND_VOLUME,
		},
		Group: []csipb.GroupControllerServiceCapability_RPC_Type{},
	})
	driver := connect(t, fake)
	if got := driver.Info(); got.Name != "" || got.Has(csipb.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME) {
		t.Errorf("before Describe it is %+v", got)
	}
	info, err := driver.Describe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if info.Name != "fake.example.com" || info.VendorVersion != "1.2.3" || driver.Info().Name != info.Name {
		t.Errorf("got %+v and then %+v", info, driver.Info())
	}
	tests := map[string]struct{ got, want bool }{
		"an announced capability":                {info.Has(csipb.ControllerServiceCapability_RPC_EXPAND_VOLUME), true},
		"a capability that is not announced":     {info.Has(csipb.ControllerServiceCapability_RPC_CLONE_VOLUME), false},
		"topology":                               {info.HasService(csipb.PluginCapability_Service_VOLUME_ACCESSIBILITY_CONSTRAINTS), true},
		"no group service":                       {info.HasService(csipb.PluginCapability_Service_GROUP_CONTROLLER_SERVICE), false},
		"no group capability":                    {info.HasGroup(csipb.GroupControllerServiceCapability_RPC_CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT), false},
		"offline expansion":                      {info.HasExpansion(csipb.PluginCapability_VolumeExpansion_OFFLINE), true},
		"no online expansion":                    {info.HasExpansion(csipb.PluginCapability_VolumeExpansion_ONLINE), false},
		"a view of the driver has the same info": {driver.WithTimeout(1).Info().Has(csipb.ControllerServiceCapability_RPC_EXPAND_VOLUME), true},
	}
	for name, tt := range tests {
		if tt.got != tt.want {
			t.Errorf("%s: got %v", name, tt.got)
		}
	}
}

func TestOnlyAnnouncedServicesAreCalled(t *testing.T) {
	fake := csitest.New(csitest.Options{
		Controller: []csipb.ControllerServiceCapability_RPC_Type{}, Group: []csipb.GroupControllerServiceCapability_RPC_Type{},
	})
	connectReady(t, fake)
	for _, method := range []csi.Method{csi.ControllerGetCapabilities, csi.GroupControllerGetCapabilities, csi.NodeGetCapabilities} {
		if got := fake.Calls(method); got != 0 {
			t.Errorf("%s was called %d times", method, got)
		}
	}
}

// Many drivers announce their controller service on nodes that do not serve it.
func TestTheControllerServiceIsNotCalledOnANode(t *testing.T) {
	fake := csitest.New(csitest.Options{})
	for _, method := range []csi.Method{csi.ControllerGetCapabilities, csi.GroupControllerGetCapabilities} {
		fake.FailNext(method, codes.Unimplemented, "unknown service")
	}
	driver := connectTo(t, csi.Options{Address: fake.Serve(t), NodeOnly: true})
	info, err := driver.Describe(t.Context())
	if err != nil || info.Name == "" || fake.Calls(csi.ControllerGetCapabilities) != 0 {
		t.Errorf("got %+v, %v", info, err)
	}
}

func TestGroupCapabilitiesAreRead(t *testing.T) {
	fake := csitest.New(csitest.Options{Controller: []csipb.ControllerServiceCapability_RPC_Type{}})
	info, err := connect(t, fake).Describe(t.Context())
	if err != nil || !info.HasGroup(csipb.GroupControllerServiceCapability_RPC_CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT) {
		t.Errorf("got %+v, %v", info, err)
	}
}

func TestADriverWithoutAValidNameIsRejected(t *testing.T) {
	fake := csitest.New(csitest.Options{})
	changeResponse(fake, csi.GetPluginInfo, func(r *csipb.GetPluginInfoResponse) { r.Name = "" })
	driver := connect(t, fake)
	if _, err := driver.Describe(t.Context()); err == nil || !strings.Contains(err.Error(), "it has no name") {
		t.Errorf("got %v", err)
	}
	if got := driver.Info(); got.VendorVersion != "" {
		t.Errorf("it is stored as %+v", got)
	}
}

func TestHasNodeCapability(t *testing.T) {
	fake := csitest.New(csitest.Options{Node: []csipb.NodeServiceCapability_RPC_Type{csipb.NodeServiceCapability_RPC_EXPAND_VOLUME}})
	driver := connect(t, fake)
	tests := map[string]struct {
		code codes.Code
		cap  csipb.NodeServiceCapability_RPC_Type
		want bool
		fail bool
	}{
		"an announced capability":            {codes.OK, csipb.NodeServiceCapability_RPC_EXPAND_VOLUME, true, false},
		"a capability that is not announced": {codes.OK, csipb.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME, false, false},
		"a socket without a node service":    {codes.Unimplemented, csipb.NodeServiceCapability_RPC_EXPAND_VOLUME, false, false},
		"a node service that fails":          {codes.Internal, csipb.NodeServiceCapability_RPC_EXPAND_VOLUME, false, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if tt.code != codes.OK {
				fake.FailNext(csi.NodeGetCapabilities, tt.code, "no")
			}
			got, err := driver.HasNodeCapability(t.Context(), tt.cap)
			if got != tt.want || (err != nil) != tt.fail {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

func TestNodeGetInfo(t *testing.T) {
	fake := csitest.New(csitest.Options{NodeID: "n1"})
	driver := connect(t, fake)
	if got, err := driver.NodeGetInfo(t.Context()); err != nil || got.GetNodeId() != "n1" {
		t.Errorf("got %v, %v", got, err)
	}
	fake.SetHooks(csitest.Hooks{After: func(context.Context, csi.Method, any, any, error) (any, error) {
		return &csipb.NodeGetInfoResponse{}, nil
	}})
	_, err := driver.NodeGetInfo(t.Context())
	wantInvalidResponse(t, err, "")
}
