package csi

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
)

// A target is something that calls are about and that can be slow while other targets
// are not.
type target struct {
	key  string
	name string // for people
}

// targetOf returns what can make a call slow, from the outside to the inside: the node of
// an attachment; the source of a new volume, or the parameters of its class. Other calls
// have no target: the driver as a whole is fast or slow.
func targetOf(request any) []target {
	switch r := request.(type) {
	case *csipb.ControllerPublishVolumeRequest:
		return []target{nodeTarget(r.GetNodeId())}
	case *csipb.ControllerUnpublishVolumeRequest:
		return []target{nodeTarget(r.GetNodeId())}
	case *csipb.CreateVolumeRequest:
		return volumeTarget(r)
	default:
		return nil
	}
}

func nodeTarget(id string) target { return target{"node " + id, fmt.Sprintf("node %q", id)} }

// volumeTarget has the copies of all sources as one target, and each source as part of
// it: many copies of different sources say no more about plain volumes than those of one.
func volumeTarget(r *csipb.CreateVolumeRequest) []target {
	source := r.GetVolumeContentSource()
	switch {
	case source.GetSnapshot() != nil:
		id := source.GetSnapshot().GetSnapshotId()
		return []target{{"snapshots", "snapshots as sources"}, {id, fmt.Sprintf("source snapshot %q", id)}}
	case source.GetVolume() != nil:
		id := source.GetVolume().GetVolumeId()
		return []target{{"clones", "volumes as sources"}, {id, fmt.Sprintf("source volume %q", id)}}
	default:
		return []target{{"class" + classKey(r.GetParameters()), "volumes of this class"}}
	}
}

// classKey tells classes apart by their parameters. Those that csi-provisioner adds are of
// the claim.
func classKey(parameters map[string]string) string {
	var key strings.Builder
	for _, name := range slices.Sorted(maps.Keys(parameters)) {
		if !strings.HasPrefix(name, "csi.storage.k8s.io/") {
			fmt.Fprintf(&key, " %q=%q", name, parameters[name])
		}
	}
	return key.String()
}
