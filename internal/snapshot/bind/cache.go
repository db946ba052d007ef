package bind

import (
	"unique"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// CacheOptions narrow what the manager's cache holds of each kind to what is
// read of it, for there may be many. Objects are only ever changed by patches of
// single fields. Snapshots are those that are worked on; claims are all, for a
// snapshot may be restored to any namespace.
func CacheOptions(o *Options, into *cache.Options) {
	if into.ByObject == nil {
		into.ByObject = map[client.Object]cache.ByObject{}
	}
	for _, kind := range []client.Object{&corev1.PersistentVolumeClaim{}, &corev1.PersistentVolume{}, &corev1.Node{}, &snapshotv1.VolumeSnapshotContent{}} {
		into.ByObject[kind] = cache.ByObject{Transform: o.reduce}
	}
	snapshots := cache.ByObject{Transform: o.reduce}
	if len(o.Namespaces) > 0 {
		snapshots.Namespaces = map[string]cache.Config{}
	}
	for _, namespace := range o.Namespaces {
		snapshots.Namespaces[namespace] = cache.Config{}
	}
	into.ByObject[&snapshotv1.VolumeSnapshot{}] = snapshots
}

// reduce is called once for each object, before anyone else sees it.
func (o *Options) reduce(object any) (any, error) {
	switch it := object.(type) {
	case *corev1.PersistentVolumeClaim:
		return reduceClaim(it), nil
	case *corev1.PersistentVolume:
		return o.reduceVolume(it), nil
	case *corev1.Node:
		return &corev1.Node{ObjectMeta: identity(&it.ObjectMeta)}, nil
	case *snapshotv1.VolumeSnapshot:
		lighten(&it.ObjectMeta)
	case *snapshotv1.VolumeSnapshotContent:
		lighten(&it.ObjectMeta)
		it.Spec.Driver = one(it.Spec.Driver)
		ref := it.Spec.VolumeSnapshotRef
		it.Spec.VolumeSnapshotRef = corev1.ObjectReference{Namespace: one(ref.Namespace), Name: ref.Name, UID: ref.UID}
	}
	return object, nil
}

// lighten takes off what records how an object came to be what it is.
func lighten(of *metav1.ObjectMeta) {
	of.ManagedFields = nil
	delete(of.Annotations, corev1.LastAppliedConfigAnnotation)
	of.Namespace = one(of.Namespace)
	share(of.Finalizers)
}

// one is a text that many objects have, kept once.
func one(text string) string { return unique.Make(text).Value() }

func share(texts []string) {
	for i := range texts {
		texts[i] = one(texts[i])
	}
}

func reduceClaim(claim *corev1.PersistentVolumeClaim) *corev1.PersistentVolumeClaim {
	small := &corev1.PersistentVolumeClaim{ObjectMeta: identity(&claim.ObjectMeta)}
	small.Spec.VolumeName, small.Status.Phase = claim.Spec.VolumeName, claim.Status.Phase
	small.Spec.DataSource, small.Spec.DataSourceRef = claim.Spec.DataSource, claim.Spec.DataSourceRef
	return small
}

// reduceVolume keeps the nodes that a volume can be used on where somebody asks
// for them.
func (o *Options) reduceVolume(volume *corev1.PersistentVolume) *corev1.PersistentVolume {
	small := &corev1.PersistentVolume{ObjectMeta: identity(&volume.ObjectMeta)}
	small.Labels, small.Finalizers = nil, nil
	small.Spec.VolumeMode = volume.Spec.VolumeMode
	if o.Distributed {
		small.Spec.NodeAffinity = volume.Spec.NodeAffinity
	}
	if ref := volume.Spec.ClaimRef; ref != nil {
		small.Spec.ClaimRef = &corev1.ObjectReference{Namespace: one(ref.Namespace), Name: ref.Name, UID: ref.UID}
	}
	if source := volume.Spec.CSI; source != nil {
		small.Spec.CSI = &corev1.CSIPersistentVolumeSource{Driver: one(source.Driver), VolumeHandle: source.VolumeHandle}
	}
	return small
}

// identity is what says which object it is, since when, which state of it, and
// what selects or keeps it.
func identity(of *metav1.ObjectMeta) metav1.ObjectMeta {
	share(of.Finalizers)
	return metav1.ObjectMeta{
		Namespace: one(of.Namespace), Name: of.Name, UID: of.UID, ResourceVersion: of.ResourceVersion, Generation: of.Generation,
		CreationTimestamp: of.CreationTimestamp, DeletionTimestamp: of.DeletionTimestamp, Labels: of.Labels, Finalizers: of.Finalizers,
	}
}
