package csi

import (
	"context"
	"fmt"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/proto"
	"k8s.io/klog/v2"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// logDeviation logs a response that is accepted although it deviates from the
// specification or the request. Each kind of deviation is logged once.
func (d *Driver) logDeviation(ctx context.Context, method Method, what, detail string) {
	if what == "" {
		return
	}
	if _, logged := d.deviations.LoadOrStore(string(method)+": "+what, true); !logged {
		klog.FromContext(ctx).Info("Accepted a response of the driver that deviates from the CSI specification or the request; this is logged once",
			"driver", d.displayName(), "method", method, "deviation", what, "detail", kube.Truncate(detail, maxMessageBytes))
	}
}

// The functions below return the kind of deviation in a response and an example, or
// empty strings if there is none. They set invalid values to unknown.

func volumeDeviation(req *csipb.CreateVolumeRequest, volume *csipb.Volume) (what, detail string) {
	requested, got := req.GetVolumeContentSource(), volume.GetContentSource()
	if requested == nil || proto.Equal(requested, got) {
		return "", ""
	}
	return "the content source of a volume has another id than in the request", fmt.Sprintf("requested %v, reported %v", requested, got)
}

// clearInvalid sets an invalid size or creation time of a snapshot to unknown.
func clearInvalid(snapshot *csipb.Snapshot) (what, detail string) {
	detail = fmt.Sprintf("snapshot %q", snapshot.GetSnapshotId())
	if snapshot.GetSizeBytes() < 0 {
		what, detail = "the size of a snapshot is negative", fmt.Sprintf("%s has %d bytes", detail, snapshot.GetSizeBytes())
		snapshot.SizeBytes = 0
	}
	if !validTime(snapshot.GetCreationTime()) {
		what, detail = "the creation time of a snapshot is invalid", fmt.Sprintf("%s was created at %v", detail, snapshot.GetCreationTime())
		snapshot.CreationTime = nil
	}
	if what == "" {
		return "", ""
	}
	return what, detail
}

func sourceDeviation(snapshot *csipb.Snapshot, requested string) (what, detail string) {
	switch snapshot.GetSourceVolumeId() {
	case requested:
		return "", ""
	case "":
		return "a snapshot has no source volume", fmt.Sprintf("snapshot %q", snapshot.GetSnapshotId())
	default:
		return "the source volume of a snapshot has another id than in the request",
			fmt.Sprintf("snapshot %q is reported with source %q, requested was %q", snapshot.GetSnapshotId(), snapshot.GetSourceVolumeId(), requested)
	}
}
