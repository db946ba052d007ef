package csi

import (
	"fmt"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/proto"
)

// The checks of answers return the reason for which an answer cannot be used,
// or nothing. They do no I/O.

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
	asked := req.GetVolumeContentSource()
	switch got := volume.GetContentSource(); {
	case asked == nil:
		return ""
	case got == nil:
		return "the volume was asked for with content and is reported without: it may be empty"
	case !proto.Equal(asked, got):
		return "the volume is reported with other content than was asked for"
	default:
		return ""
	}
}

func checkExpansion(req *csipb.ControllerExpandVolumeRequest, answer *csipb.ControllerExpandVolumeResponse) string {
	if answer.GetCapacityBytes() == 0 {
		return "the expanded volume is reported with no size"
	}
	return checkSize(req.GetCapacityRange(), answer.GetCapacityBytes())
}

func checkSize(asked *csipb.CapacityRange, size int64) string {
	required, limit := asked.GetRequiredBytes(), asked.GetLimitBytes()
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

func checkSnapshot(snapshot *csipb.Snapshot) string {
	switch {
	case snapshot.GetSnapshotId() == "":
		return "the snapshot has no id"
	case snapshot.GetSourceVolumeId() == "":
		return "the snapshot does not say of which volume it is"
	case snapshot.GetCreationTime() != nil && snapshot.GetCreationTime().CheckValid() != nil:
		return "the snapshot says no valid time when it was made"
	case snapshot.GetSizeBytes() < 0:
		return fmt.Sprintf("its size of %d bytes is negative", snapshot.GetSizeBytes())
	default:
		return ""
	}
}
