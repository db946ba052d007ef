package csi

import (
	"fmt"
	"slices"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
)

// The checks of responses return the reason why a response cannot be used, or "".
// They do no I/O. A response that the kubernetes-csi sidecars accept is accepted here
// too, unless it puts data at risk. Its deviations are logged once (see deviations.go).

func checkVolume(req *csipb.CreateVolumeRequest, volume *csipb.Volume) string {
	if volume.GetVolumeId() == "" {
		return "the volume has no id"
	}
	// Capacity 0 means "unknown" here and only here.
	if size := volume.GetCapacityBytes(); size != 0 {
		if reason := checkSize(req.GetCapacityRange(), size); reason != "" {
			return reason
		}
	}
	// Some drivers report the content source under another id: the request has a path
	// and the response a number. Only a missing source is an error, because the volume
	// may then be empty.
	if req.GetVolumeContentSource() != nil && volume.GetContentSource() == nil {
		return "the request has a content source and the response has none: the volume may be empty"
	}
	return checkTopology(req.GetAccessibilityRequirements().GetRequisite(), volume.GetAccessibleTopology())
}

// checkTopology checks that a volume is accessible from one of the requisite topologies, which
// it must be ("TopologyRequirement": requisite). No pod for which the volume was requested could
// use another one. Some drivers report fewer or other keys than they were sent, so only keys
// that both have are compared. A volume without topology is accessible from everywhere.
func checkTopology(requisite, accessible []*csipb.Topology) string {
	if len(requisite) == 0 || len(accessible) == 0 {
		return ""
	}
	for _, at := range accessible {
		if slices.ContainsFunc(requisite, func(r *csipb.Topology) bool { return mayOverlap(r.GetSegments(), at.GetSegments()) }) {
			return ""
		}
	}
	return fmt.Sprintf("the volume is accessible from %v, which is outside the requested topology", accessible[0].GetSegments())
}

// mayOverlap reports whether two topologies have the same values for all keys that both have.
func mayOverlap(a, b map[string]string) bool {
	for key, value := range a {
		if other, ok := b[key]; ok && other != value {
			return false
		}
	}
	return true
}

func checkExpansion(req *csipb.ControllerExpandVolumeRequest, resp *csipb.ControllerExpandVolumeResponse) string {
	if resp.GetCapacityBytes() == 0 {
		return "the expanded volume is reported with no size"
	}
	return checkSize(req.GetCapacityRange(), resp.GetCapacityBytes())
}

func checkSize(allowed *csipb.CapacityRange, size int64) string {
	required, limit := allowed.GetRequiredBytes(), allowed.GetLimitBytes()
	switch {
	case size < 0:
		return fmt.Sprintf("its size of %d bytes is negative", size)
	case size < required:
		return fmt.Sprintf("its size of %d bytes is less than the required %d", size, required)
	case limit > 0 && size > limit:
		return fmt.Sprintf("its size of %d bytes is more than the limit of %d", size, limit)
	default:
		return ""
	}
}

// checkSnapshot checks a snapshot in any response. The id is enough to follow and
// delete the snapshot. Other fields that are missing or invalid do no harm; see
// deviations.go.
func checkSnapshot(snapshot *csipb.Snapshot) string {
	if snapshot.GetSnapshotId() == "" {
		return "the snapshot has no id"
	}
	return ""
}
