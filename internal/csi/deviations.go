package csi

import (
	"context"
	"fmt"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/proto"
	"k8s.io/klog/v2"
)

// logDeviation logs, once for each kind of oddity, an answer that is taken although it
// differs from what the specification says or the request asked for.
func (d *Driver) logDeviation(ctx context.Context, method Method, what, detail string) {
	if what == "" {
		return
	}
	if _, logged := d.deviations.LoadOrStore(string(method)+": "+what, true); !logged {
		klog.FromContext(ctx).Info("The driver gave an odd answer, which was taken; it is not logged again",
			"driver", d.displayName(), "method", method, "oddity", what, "detail", detail)
	}
}

// The functions below return what is odd about an answer and an example of it;
// both are empty for an answer as it should be. They change what cannot be meant
// into what the driver does not know.

func volumeDeviation(req *csipb.CreateVolumeRequest, volume *csipb.Volume) (what, detail string) {
	asked, got := req.GetVolumeContentSource(), volume.GetContentSource()
	if asked == nil || proto.Equal(asked, got) {
		return "", ""
	}
	return "it names the content of a volume otherwise than the request did", fmt.Sprintf("asked for %v, reported is %v", asked, got)
}

// clearInvalid makes sizes and times of a snapshot unknown that cannot be meant.
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

func sourceDeviation(snapshot *csipb.Snapshot, asked string) (what, detail string) {
	switch snapshot.GetSourceVolumeId() {
	case asked:
		return "", ""
	case "":
		return "a snapshot does not say of which volume it is", fmt.Sprintf("snapshot %q", snapshot.GetSnapshotId())
	default:
		return "it names the volume of a snapshot otherwise than the request did",
			fmt.Sprintf("snapshot %q is reported to be of %q, asked for was %q", snapshot.GetSnapshotId(), snapshot.GetSourceVolumeId(), asked)
	}
}
