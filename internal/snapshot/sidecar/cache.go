package sidecar

import (
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// CacheOptions limits the manager's cache: on a node, to the contents of that node's
// volumes. Of the contents of other drivers, the cache has only the name and the driver.
func CacheOptions(o *Options, into *cache.Options) {
	contents := cache.ByObject{Transform: o.trim}
	if o.Node != "" {
		contents.Label = labels.SelectorFromSet(labels.Set{snapshot.ManagedBy: snapshot.NodeLabel(o.Node)})
	}
	if into.ByObject == nil {
		into.ByObject = map[client.Object]cache.ByObject{}
	}
	into.ByObject[&snapshotv1.VolumeSnapshotContent{}] = contents
}

// trim removes fields from an object before it is cached. It changes the object in place:
// the initial list is transformed when it is read and again when it is put into the cache,
// and copies would stay in memory until then. Trimmed objects are never written.
func (o *Options) trim(object any) (any, error) {
	content, ok := object.(*snapshotv1.VolumeSnapshotContent)
	if !ok {
		return object, nil
	}
	if content.Spec.Driver == o.Driver {
		kube.StripAnnotations(&content.ObjectMeta)
		return content, nil
	}
	*content = snapshotv1.VolumeSnapshotContent{
		ObjectMeta: metav1.ObjectMeta{Name: content.Name, UID: content.UID, ResourceVersion: content.ResourceVersion},
		Spec:       snapshotv1.VolumeSnapshotContentSpec{Driver: content.Spec.Driver},
	}
	return content, nil
}
