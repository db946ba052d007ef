package snapshot

import (
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// Resources are what must be installed in the cluster before either half can
// work.
var Resources = kube.Resources{
	GroupVersion: snapshotv1.SchemeGroupVersion,
	Names:        []string{"volumesnapshots", "volumesnapshotcontents", "volumesnapshotclasses"},
}
