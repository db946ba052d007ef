package csitest

import (
	"context"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
)

type identity struct {
	csipb.UnimplementedIdentityServer
	*Driver
}

func (d identity) GetPluginInfo(context.Context, *csipb.GetPluginInfoRequest) (*csipb.GetPluginInfoResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return &csipb.GetPluginInfoResponse{Name: d.opts.Name, VendorVersion: d.opts.Version}, nil
}

func (d identity) Probe(context.Context, *csipb.ProbeRequest) (*csipb.ProbeResponse, error) {
	return &csipb.ProbeResponse{}, nil // always ready, unless a hook changes the response
}

func (d identity) GetPluginCapabilities(context.Context, *csipb.GetPluginCapabilitiesRequest) (*csipb.GetPluginCapabilitiesResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []*csipb.PluginCapability
	service := func(t csipb.PluginCapability_Service_Type) {
		all = append(all, &csipb.PluginCapability{Type: &csipb.PluginCapability_Service_{Service: &csipb.PluginCapability_Service{Type: t}}})
	}
	if len(d.opts.Controller) > 0 {
		service(csipb.PluginCapability_Service_CONTROLLER_SERVICE)
	}
	if len(d.opts.Group) > 0 {
		service(csipb.PluginCapability_Service_GROUP_CONTROLLER_SERVICE)
	}
	if len(d.opts.Segments) > 0 {
		service(csipb.PluginCapability_Service_VOLUME_ACCESSIBILITY_CONSTRAINTS)
	}
	if d.can(csipb.ControllerServiceCapability_RPC_EXPAND_VOLUME) {
		how := csipb.PluginCapability_VolumeExpansion_ONLINE
		if d.opts.OfflineExpansion {
			how = csipb.PluginCapability_VolumeExpansion_OFFLINE
		}
		all = append(all, &csipb.PluginCapability{Type: &csipb.PluginCapability_VolumeExpansion_{VolumeExpansion: &csipb.PluginCapability_VolumeExpansion{Type: how}}})
	}
	return &csipb.GetPluginCapabilitiesResponse{Capabilities: all}, nil
}
