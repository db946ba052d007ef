package csi

import (
	"fmt"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
)

// The checks of answers return the reason for which an answer cannot be used,
// or nothing. They do no I/O. An answer that works with the programs of
// kubernetes-csi is taken, unless data are at stake; what is odd about it is said
// once (see odd.go).

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
	// What it was made from the driver may name in words of its own, as some do for
	// what was asked for by a path and is answered by a number. That it was made from
	// something is what counts: without that it may be empty.
	if req.GetVolumeContentSource() != nil && volume.GetContentSource() == nil {
		return "the volume was asked for with content and is reported without: it may be empty"
	}
	return ""
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

// checkSnapshot is about any snapshot in an answer. Whoever has its id can follow
// and delete it: what else is said of it, or is not, makes it no worse.
func checkSnapshot(snapshot *csipb.Snapshot) string {
	if snapshot.GetSnapshotId() == "" {
		return "the snapshot has no id"
	}
	return ""
}
