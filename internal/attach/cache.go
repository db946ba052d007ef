package attach

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// CacheOptions narrow what the manager's cache holds: whole objects only where
// they are the driver's. Other drivers' are reduced to what decisions read of
// them, for a cluster has many drivers and each of them an attacher.
//
// A reduced object lacks fields, so it is never written back as a whole: all
// writes are patches of single fields.
func CacheOptions(o *Options, into *cache.Options) {
	if into.ByObject == nil {
		into.ByObject = map[client.Object]cache.ByObject{}
	}
	for _, kind := range []client.Object{&storagev1.VolumeAttachment{}, &corev1.PersistentVolume{}, &storagev1.CSINode{}} {
		into.ByObject[kind] = cache.ByObject{Transform: o.reduce}
	}
}

// reduce changes an object before anyone else sees it: the object itself, for what
// is there at the start is reduced when it is read and again when all of it goes
// into the cache, and copies would be held until then.
func (o *Options) reduce(object any) (any, error) {
	switch it := object.(type) {
	case *storagev1.VolumeAttachment:
		it.ManagedFields = nil
		if it.Spec.Attacher != o.Driver {
			*it = *reduceAttachment(it)
		}
	case *corev1.PersistentVolume:
		it.ManagedFields = nil
		if !o.isOurs(it) {
			*it = *o.reduceVolume(it)
		}
	case *storagev1.CSINode:
		*it = *o.reduceNode(it)
	}
	return object, nil
}

// isOurs tells whether a volume is the driver's, or one of the plugin whose place
// it has taken.
func (o *Options) isOurs(volume *corev1.PersistentVolume) bool {
	return volume.Spec.CSI != nil && volume.Spec.CSI.Driver == o.Driver || o.Plugin.HasVolume(volume)
}

// reduceAttachment keeps of another attacher's VolumeAttachment whose it is.
func reduceAttachment(a *storagev1.VolumeAttachment) *storagev1.VolumeAttachment {
	small := &storagev1.VolumeAttachment{ObjectMeta: kube.IdentityMeta(&a.ObjectMeta)}
	small.Spec.Attacher = a.Spec.Attacher
	return small
}

// reduceVolume keeps of another driver's volume what is told and done if one of
// our VolumeAttachments names it: whose it is, what was published of it, and
// our finalizer, which is taken off a list that must be the one that was seen.
func (o *Options) reduceVolume(volume *corev1.PersistentVolume) *corev1.PersistentVolume {
	small := &corev1.PersistentVolume{ObjectMeta: kube.IdentityMeta(&volume.ObjectMeta)}
	if slices.Contains(volume.Finalizers, o.finalizer()) {
		small.Finalizers = volume.Finalizers
	}
	if source := volume.Spec.CSI; source != nil {
		small.Spec.CSI = &corev1.CSIPersistentVolumeSource{
			Driver: source.Driver, VolumeHandle: source.VolumeHandle, ControllerPublishSecretRef: source.ControllerPublishSecretRef,
		}
	}
	if claim := volume.Spec.ClaimRef; claim != nil {
		small.Spec.ClaimRef = &corev1.ObjectReference{Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID}
	}
	return small
}

// reduceNode keeps of a node the driver's id of it.
func (o *Options) reduceNode(node *storagev1.CSINode) *storagev1.CSINode {
	small := &storagev1.CSINode{ObjectMeta: kube.IdentityMeta(&node.ObjectMeta)}
	if id := nodeID(node, o.Driver); id != "" {
		small.Spec.Drivers = []storagev1.CSINodeDriver{{Name: o.Driver, NodeID: id}}
	}
	return small
}
