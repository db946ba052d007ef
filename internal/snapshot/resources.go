package snapshot

import (
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// Resources must be served by the API server before snapshot-controller and csi-snapshotter
// can work.
var Resources = kube.Resources{
	GroupVersion: snapshotv1.SchemeGroupVersion,
	Names:        []string{"volumesnapshots", "volumesnapshotcontents", "volumesnapshotclasses"},
}
