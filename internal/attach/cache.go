package attach

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// CacheOptions limits what the manager's cache holds to whole objects of our
// driver. Objects of other drivers are reduced to the fields that decide reads:
// a cluster may have many drivers, and each has an attacher.
//
// A reduced object lacks fields, so it is never written as a whole. All writes
// are patches of single fields.
func CacheOptions(o *Options, into *cache.Options) {
	if into.ByObject == nil {
		into.ByObject = map[client.Object]cache.ByObject{}
	}
	for _, kind := range []client.Object{&storagev1.VolumeAttachment{}, &corev1.PersistentVolume{}, &storagev1.CSINode{}} {
		into.ByObject[kind] = cache.ByObject{Transform: o.reduce}
	}
}

// reduce removes unused fields before the object enters the cache. It changes
// the object in place: the initial list is reduced once when it is read and
// again when all of it enters the cache, and copies would be held until then.
func (o *Options) reduce(object any) (any, error) {
	switch it := object.(type) {
	case *storagev1.VolumeAttachment:
		kube.KeepAnnotations(&it.ObjectMeta, handleAnnotation, nodeAnnotation, secretAnnotation)
		if it.Spec.Attacher != o.Driver {
			*it = *reduceAttachment(it)
		}
	case *corev1.PersistentVolume:
		kube.StripAnnotations(&it.ObjectMeta)
		if !o.Plugin.IsVolumeOf(o.Driver, it) {
			*it = *o.reduceVolume(it)
		}
	case *storagev1.CSINode:
		*it = *o.reduceNode(it)
	}
	return object, nil
}

// reduceAttachment keeps only the attacher's name of another driver's
// VolumeAttachment.
func reduceAttachment(a *storagev1.VolumeAttachment) *storagev1.VolumeAttachment {
	small := &storagev1.VolumeAttachment{ObjectMeta: kube.IdentityMeta(&a.ObjectMeta)}
	small.Spec.Attacher = a.Spec.Attacher
	return small
}

// reduceVolume keeps those fields of another driver's volume that are used if
// one of our VolumeAttachments names it: its claim for events, its handle and
// secret, and the finalizers if ours is among them, because a finalizer is
// removed on the condition that the list is unchanged.
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

// reduceNode keeps only the driver's ID of a node.
func (o *Options) reduceNode(node *storagev1.CSINode) *storagev1.CSINode {
	small := &storagev1.CSINode{ObjectMeta: kube.IdentityMeta(&node.ObjectMeta)}
	if id := nodeID(node, o.Driver); id != "" {
		small.Spec.Drivers = []storagev1.CSINodeDriver{{Name: o.Driver, NodeID: id}}
	}
	return small
}
