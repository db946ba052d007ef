package csi

import (
	"context"
	"errors"
	"fmt"
	"maps"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
)

// Info is the driver's own description. The zero value announces nothing.
type Info struct {
	Name          string
	VendorVersion string

	controller map[csipb.ControllerServiceCapability_RPC_Type]bool
	group      map[csipb.GroupControllerServiceCapability_RPC_Type]bool
	services   map[csipb.PluginCapability_Service_Type]bool
	expansion  map[csipb.PluginCapability_VolumeExpansion_Type]bool
}

// Has reports a capability of the controller service.
func (i Info) Has(c csipb.ControllerServiceCapability_RPC_Type) bool { return i.controller[c] }

// HasGroup reports a capability of the group controller service.
func (i Info) HasGroup(c csipb.GroupControllerServiceCapability_RPC_Type) bool { return i.group[c] }

// HasService reports a service or a constraint of the whole plugin, such as
// VOLUME_ACCESSIBILITY_CONSTRAINTS for topology.
func (i Info) HasService(c csipb.PluginCapability_Service_Type) bool { return i.services[c] }

// Without returns a copy of i without a service or constraint.
func (i Info) Without(c csipb.PluginCapability_Service_Type) Info {
	i.services = maps.Clone(i.services)
	delete(i.services, c)
	return i
}

// HasExpansion reports whether volumes can be expanded while they are
// published (ONLINE) or only while they are not (OFFLINE).
func (i Info) HasExpansion(c csipb.PluginCapability_VolumeExpansion_Type) bool { return i.expansion[c] }

// Info returns the result of the last successful [Driver.Describe], or the zero
// Info before the first one. It is read again after each reconnect, before any other call
// is sent, because the driver may have been upgraded.
func (d *Driver) Info() Info {
	if info := d.description.Load(); info != nil {
		return *info
	}
	return Info{}
}

// Describe reads the driver's name, version and capabilities ("GetPluginInfo",
// "GetPluginCapabilities", "ControllerGetCapabilities",
// "GroupControllerGetCapabilities"), checks them and stores them for [Driver.Info].
// It calls only the controller services that the driver announces, and none with
// Options.NodeOnly. It is an error if the name has changed since the last call.
func (d *Driver) Describe(ctx context.Context) (Info, error) {
	c, err := d.socket.acquire(ctx)
	if err != nil {
		return Info{}, d.fail(GetPluginInfo, err)
	}
	defer c.calls.Done()
	info, err := d.describe(over(ctx, c))
	if err != nil {
		return Info{}, err
	}
	if err := d.socket.whileCurrent(c, func() { d.description.Store(&info) }); err != nil {
		return Info{}, d.fail(GetPluginInfo, err)
	}
	return info, nil
}

// describe reads and checks the driver's description over one connection.
func (d *Driver) describe(ctx context.Context) (Info, error) {
	info, err := d.readInfo(ctx)
	if err != nil {
		return Info{}, err
	}
	switch before := d.Info().Name; before {
	case "":
		d.metrics.SetDriverName(info.Name)
	case info.Name:
	default:
		return Info{}, fmt.Errorf("the driver at %s was %q and is now %q: restart this process if that is intended", d.path, before, info.Name)
	}
	return info, nil
}

func (d *Driver) readInfo(ctx context.Context) (Info, error) {
	plugin, err := send(ctx, d, operation{method: GetPluginInfo}, d.identity.GetPluginInfo, &csipb.GetPluginInfoRequest{})
	if err != nil {
		return Info{}, err
	}
	info := Info{Name: plugin.GetName(), VendorVersion: plugin.GetVendorVersion()}
	if err := checkName(info.Name); err != nil {
		return Info{}, fmt.Errorf("the driver at %s cannot be used: %w", d.path, err)
	}
	if err := d.readPluginCapabilities(ctx, &info); err != nil {
		return Info{}, err
	}
	if d.nodeOnly {
		return info, nil
	}
	if info.HasService(csipb.PluginCapability_Service_CONTROLLER_SERVICE) {
		if err := d.readControllerCapabilities(ctx, &info); err != nil {
			return Info{}, err
		}
	}
	if info.HasService(csipb.PluginCapability_Service_GROUP_CONTROLLER_SERVICE) {
		if err := d.readGroupCapabilities(ctx, &info); err != nil {
			return Info{}, err
		}
	}
	return info, nil
}

func (d *Driver) readPluginCapabilities(ctx context.Context, info *Info) error {
	resp, err := send(ctx, d, operation{method: GetPluginCapabilities}, d.identity.GetPluginCapabilities, &csipb.GetPluginCapabilitiesRequest{})
	if err != nil {
		return err
	}
	info.services = make(map[csipb.PluginCapability_Service_Type]bool)
	info.expansion = make(map[csipb.PluginCapability_VolumeExpansion_Type]bool)
	for _, c := range resp.GetCapabilities() {
		if s := c.GetService(); s != nil {
			info.services[s.GetType()] = true
		}
		if e := c.GetVolumeExpansion(); e != nil {
			info.expansion[e.GetType()] = true
		}
	}
	return nil
}

func (d *Driver) readControllerCapabilities(ctx context.Context, info *Info) error {
	resp, err := send(ctx, d, operation{method: ControllerGetCapabilities}, d.controller.ControllerGetCapabilities, &csipb.ControllerGetCapabilitiesRequest{})
	if err != nil {
		return err
	}
	info.controller = make(map[csipb.ControllerServiceCapability_RPC_Type]bool)
	for _, c := range resp.GetCapabilities() {
		info.controller[c.GetRpc().GetType()] = true
	}
	return nil
}

func (d *Driver) readGroupCapabilities(ctx context.Context, info *Info) error {
	resp, err := send(ctx, d, operation{method: GroupControllerGetCapabilities}, d.group.GroupControllerGetCapabilities, &csipb.GroupControllerGetCapabilitiesRequest{})
	if err != nil {
		return err
	}
	info.group = make(map[csipb.GroupControllerServiceCapability_RPC_Type]bool)
	for _, c := range resp.GetCapabilities() {
		info.group[c.GetRpc().GetType()] = true
	}
	return nil
}

// HasNodeCapability reports whether the node service of this socket has a
// capability ("NodeGetCapabilities"). A socket without a node service has none.
// Describe does not make this call, because some drivers crash on it in their
// controller pod.
func (d *Driver) HasNodeCapability(ctx context.Context, c csipb.NodeServiceCapability_RPC_Type) (bool, error) {
	resp, err := send(ctx, d, operation{method: NodeGetCapabilities}, d.node.NodeGetCapabilities, &csipb.NodeGetCapabilitiesRequest{})
	var called *Error
	if errors.As(err, &called) && called.Code == codes.Unimplemented {
		return false, nil
	}
	for _, has := range resp.GetCapabilities() {
		if has.GetRpc().GetType() == c {
			return true, nil
		}
	}
	return false, err
}

// displayName is the driver's name in errors.
func (d *Driver) displayName() string {
	if name := d.Info().Name; name != "" {
		return name
	}
	return "at " + d.path
}
