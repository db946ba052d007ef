package bind

import (
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// CacheOptions narrow what the manager's cache holds of claims, volumes and
// nodes to what is read of them, for there may be many. They are only ever
// changed by patches of single fields. Snapshots are those that are worked on;
// claims are all, for a snapshot may be restored to any namespace.
func CacheOptions(o *Options, into *cache.Options) {
	if into.ByObject == nil {
		into.ByObject = map[client.Object]cache.ByObject{}
	}
	for _, kind := range []client.Object{&corev1.PersistentVolumeClaim{}, &corev1.PersistentVolume{}, &corev1.Node{}} {
		into.ByObject[kind] = cache.ByObject{Transform: reduce}
	}
	if len(o.Namespaces) == 0 {
		return
	}
	served := map[string]cache.Config{}
	for _, namespace := range o.Namespaces {
		served[namespace] = cache.Config{}
	}
	into.ByObject[&snapshotv1.VolumeSnapshot{}] = cache.ByObject{Namespaces: served}
}

// reduce is called once for each object, before anyone else sees it.
func reduce(object any) (any, error) {
	switch it := object.(type) {
	case *corev1.PersistentVolumeClaim:
		return reduceClaim(it), nil
	case *corev1.PersistentVolume:
		return reduceVolume(it), nil
	case *corev1.Node:
		return &corev1.Node{ObjectMeta: identity(&it.ObjectMeta)}, nil
	}
	return object, nil
}

func reduceClaim(claim *corev1.PersistentVolumeClaim) *corev1.PersistentVolumeClaim {
	small := &corev1.PersistentVolumeClaim{ObjectMeta: identity(&claim.ObjectMeta)}
	small.Spec.VolumeName, small.Status.Phase = claim.Spec.VolumeName, claim.Status.Phase
	small.Spec.DataSource, small.Spec.DataSourceRef = claim.Spec.DataSource, claim.Spec.DataSourceRef
	return small
}

func reduceVolume(volume *corev1.PersistentVolume) *corev1.PersistentVolume {
	small := &corev1.PersistentVolume{ObjectMeta: identity(&volume.ObjectMeta)}
	small.Spec.VolumeMode, small.Spec.NodeAffinity = volume.Spec.VolumeMode, volume.Spec.NodeAffinity
	if ref := volume.Spec.ClaimRef; ref != nil {
		small.Spec.ClaimRef = &corev1.ObjectReference{Namespace: ref.Namespace, Name: ref.Name, UID: ref.UID}
	}
	if source := volume.Spec.CSI; source != nil {
		small.Spec.CSI = &corev1.CSIPersistentVolumeSource{Driver: source.Driver, VolumeHandle: source.VolumeHandle}
	}
	return small
}

// identity is what says which object it is, since when, which state of it, and
// what selects or keeps it.
func identity(of *metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: of.Namespace, Name: of.Name, UID: of.UID, ResourceVersion: of.ResourceVersion, Generation: of.Generation,
		CreationTimestamp: of.CreationTimestamp, DeletionTimestamp: of.DeletionTimestamp, Labels: of.Labels, Finalizers: of.Finalizers,
	}
}
