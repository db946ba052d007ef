package csitest

import (
	csipb "github.com/container-storage-interface/spec/lib/go/csi"
)

// DefaultSize in bytes of volumes whose request has no size.
const DefaultSize = 1 << 30

// Options configure a [Driver]. The zero value is a driver with all capabilities
// that this package implements, without limits and without topology.
type Options struct {
	Name    string // csitest.holdfast.io if empty
	Version string // 1 if empty

	// Controller, Group and Node are the announced capabilities; nil announces all that
	// are implemented, an empty list none. Calls that need another capability are
	// Unimplemented.
	Controller []csipb.ControllerServiceCapability_RPC_Type
	Group      []csipb.GroupControllerServiceCapability_RPC_Type
	Node       []csipb.NodeServiceCapability_RPC_Type

	Capacity      int64 // bytes of all volumes of a segment; 0 is unlimited
	MaxVolumeSize int64 // bytes of one volume; 0 is unlimited

	// Segments are the topology segments. If there are any, the driver announces
	// VOLUME_ACCESSIBILITY_CONSTRAINTS, each segment has its own Capacity, and the
	// driver's own node is in the first one.
	Segments []map[string]string

	NodeID            string   // of the driver's own node; node-1 if empty
	Nodes             []string // further nodes that volumes can be published on
	AnyNode           bool     // volumes can be published on every node
	MaxVolumesPerNode int64    // 0 is unlimited

	MutableKeys        []string // keys that ControllerModifyVolume accepts; iops and throughput if nil
	OfflineExpansion   bool     // published volumes cannot be expanded
	NodeExpansion      bool     // expansion needs NodeExpandVolume too
	SnapshotReadyAfter int      // number of responses before a snapshot is ready

	// Record stores every call for [Driver.Log]. Calls are always counted.
	Record bool
}

func (o Options) withDefaults() Options {
	if o.Name == "" {
		o.Name = "csitest.holdfast.io"
	}
	if o.Version == "" {
		o.Version = "1"
	}
	if o.NodeID == "" {
		o.NodeID = "node-1"
	}
	if o.Controller == nil {
		o.Controller = implementedController()
	}
	if o.Group == nil {
		o.Group = implementedGroup()
	}
	if o.Node == nil {
		o.Node = implementedNode()
	}
	if o.MutableKeys == nil {
		o.MutableKeys = []string{"iops", "throughput"}
	}
	return o
}

func implementedController() []csipb.ControllerServiceCapability_RPC_Type {
	return []csipb.ControllerServiceCapability_RPC_Type{
		csipb.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
		csipb.ControllerServiceCapability_RPC_PUBLISH_UNPUBLISH_VOLUME,
		csipb.ControllerServiceCapability_RPC_LIST_VOLUMES,
		csipb.ControllerServiceCapability_RPC_GET_CAPACITY,
		csipb.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT,
		csipb.ControllerServiceCapability_RPC_LIST_SNAPSHOTS,
		csipb.ControllerServiceCapability_RPC_CLONE_VOLUME,
		csipb.ControllerServiceCapability_RPC_PUBLISH_READONLY,
		csipb.ControllerServiceCapability_RPC_EXPAND_VOLUME,
		csipb.ControllerServiceCapability_RPC_LIST_VOLUMES_PUBLISHED_NODES,
		csipb.ControllerServiceCapability_RPC_GET_VOLUME,
		csipb.ControllerServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
		csipb.ControllerServiceCapability_RPC_MODIFY_VOLUME,
		csipb.ControllerServiceCapability_RPC_GET_SNAPSHOT,
	}
}

func implementedGroup() []csipb.GroupControllerServiceCapability_RPC_Type {
	return []csipb.GroupControllerServiceCapability_RPC_Type{
		csipb.GroupControllerServiceCapability_RPC_CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT,
	}
}

func implementedNode() []csipb.NodeServiceCapability_RPC_Type {
	return []csipb.NodeServiceCapability_RPC_Type{
		csipb.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME,
		csipb.NodeServiceCapability_RPC_GET_VOLUME_STATS,
		csipb.NodeServiceCapability_RPC_EXPAND_VOLUME,
		csipb.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
	}
}
