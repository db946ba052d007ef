package csi

import "path"

// Method is the name of a CSI call without its service. Errors contain it, and the
// [Outcome] of a call depends on it.
type Method string

// The calls that this package sends.
const (
	Probe                          Method = "Probe"
	GetPluginInfo                  Method = "GetPluginInfo"
	GetPluginCapabilities          Method = "GetPluginCapabilities"
	ControllerGetCapabilities      Method = "ControllerGetCapabilities"
	GroupControllerGetCapabilities Method = "GroupControllerGetCapabilities"
	NodeGetCapabilities            Method = "NodeGetCapabilities"
	NodeGetInfo                    Method = "NodeGetInfo"
	CreateVolume                   Method = "CreateVolume"
	DeleteVolume                   Method = "DeleteVolume"
	ControllerPublishVolume        Method = "ControllerPublishVolume"
	ControllerUnpublishVolume      Method = "ControllerUnpublishVolume"
	ControllerExpandVolume         Method = "ControllerExpandVolume"
	ControllerModifyVolume         Method = "ControllerModifyVolume"
	ControllerGetVolume            Method = "ControllerGetVolume"
	GetCapacity                    Method = "GetCapacity"
	ListVolumes                    Method = "ListVolumes"
	CreateSnapshot                 Method = "CreateSnapshot"
	DeleteSnapshot                 Method = "DeleteSnapshot"
	GetSnapshot                    Method = "GetSnapshot"
	ListSnapshots                  Method = "ListSnapshots"
	CreateVolumeGroupSnapshot      Method = "CreateVolumeGroupSnapshot"
	DeleteVolumeGroupSnapshot      Method = "DeleteVolumeGroupSnapshot"
	GetVolumeGroupSnapshot         Method = "GetVolumeGroupSnapshot"
)

// MethodOf returns the last part of a full gRPC method such as
// "/csi.v1.Controller/CreateVolume".
func MethodOf(full string) Method { return Method(path.Base(full)) }

// fullName is the full gRPC method, as in the metrics, of a call that changes
// something.
func (m Method) fullName() string {
	switch m {
	case CreateVolumeGroupSnapshot, DeleteVolumeGroupSnapshot:
		return "/csi.v1.GroupController/" + string(m)
	default:
		return "/csi.v1.Controller/" + string(m)
	}
}
