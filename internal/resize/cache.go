package resize

import (
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// CacheOptions limits what the manager's cache holds of claims and volumes, of which a
// cluster has many, to the fields that this controller reads. All writes are merge patches
// of what has changed, so that a field that is not cached stays.
func CacheOptions(o *Options, into *cache.Options) {
	if into.ByObject == nil {
		into.ByObject = map[client.Object]cache.ByObject{}
	}
	for _, kind := range []client.Object{&corev1.PersistentVolumeClaim{}, &corev1.PersistentVolume{}} {
		into.ByObject[kind] = cache.ByObject{Transform: o.reduce}
	}
}

// reduce removes unused fields before the object enters the cache. It changes the object
// in place: the initial list is reduced when it is read and again when it enters the cache,
// and copies would be held until then.
func (o *Options) reduce(object any) (any, error) {
	switch it := object.(type) {
	case *corev1.PersistentVolumeClaim:
		*it = *reduceClaim(it)
	case *corev1.PersistentVolume:
		o.reduceVolume(it)
	}
	return object, nil
}

// reduceClaim keeps of a bound claim what it requests and what it has. The claim does not
// say whose its volume is.
func reduceClaim(claim *corev1.PersistentVolumeClaim) *corev1.PersistentVolumeClaim {
	small := &corev1.PersistentVolumeClaim{ObjectMeta: kube.IdentityMeta(&claim.ObjectMeta)}
	if claim.Spec.VolumeName == "" {
		return small
	}
	small.Annotations = claim.Annotations
	kube.KeepAnnotations(&small.ObjectMeta, kube.AnnStorageResizer, kube.AnnNodeExpansionNotRequired)
	small.Spec = corev1.PersistentVolumeClaimSpec{
		VolumeName: claim.Spec.VolumeName, Resources: claim.Spec.Resources, VolumeAttributesClassName: claim.Spec.VolumeAttributesClassName,
	}
	small.Status = claim.Status
	return small
}

// reduceVolume keeps the identity of other drivers' volumes, and of ours what their
// requests need. Volumes of the in-tree plugin are translated from all of their fields.
func (o *Options) reduceVolume(volume *corev1.PersistentVolume) {
	switch {
	case !o.Plugin.IsVolumeOf(o.Driver, volume):
		*volume = corev1.PersistentVolume{ObjectMeta: kube.IdentityMeta(&volume.ObjectMeta)}
	case volume.Spec.CSI == nil:
		kube.StripAnnotations(&volume.ObjectMeta)
	default:
		small := corev1.PersistentVolume{ObjectMeta: kube.IdentityMeta(&volume.ObjectMeta), Spec: volume.Spec}
		small.Annotations = volume.Annotations
		kube.KeepAnnotations(&small.ObjectMeta, kube.AnnModifySecretName, kube.AnnModifySecretNamespace, kube.AnnPreResizeCapacity)
		small.Spec.NodeAffinity, small.Spec.CSI.VolumeAttributes = nil, nil
		*volume = small
	}
}
