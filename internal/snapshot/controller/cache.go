package controller

import (
	"maps"
	"unique"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// CacheOptions reduce what the manager's cache keeps of each object to what is read of
// it. There may be many objects. They are only changed by patches of single fields, so
// nothing is lost by that. Snapshots and claims are cached in the selected namespaces
// only.
func CacheOptions(o *Options, into *cache.Options) {
	if into.ByObject == nil {
		into.ByObject = map[client.Object]cache.ByObject{}
	}
	for _, kind := range []client.Object{&corev1.PersistentVolume{}, &corev1.Node{}, &snapshotv1.VolumeSnapshotContent{}} {
		into.ByObject[kind] = cache.ByObject{Transform: o.transform}
	}
	for _, kind := range []client.Object{&corev1.PersistentVolumeClaim{}, &snapshotv1.VolumeSnapshot{}} {
		served := cache.ByObject{Transform: o.transform}
		if len(o.Namespaces) > 0 {
			served.Namespaces = map[string]cache.Config{}
		}
		for _, namespace := range o.Namespaces {
			served.Namespaces[namespace] = cache.Config{}
		}
		into.ByObject[kind] = served
	}
}

// transform removes what is not needed from an object before it is cached. It changes the
// object in place: the initial list calls it twice for each object, when it is read and
// when all of them are put into the cache, and a copy each time would double the memory.
func (o *Options) transform(object any) (any, error) {
	switch obj := object.(type) {
	case *corev1.PersistentVolumeClaim:
		transformClaim(obj)
	case *corev1.PersistentVolume:
		o.transformVolume(obj)
	case *corev1.Node:
		*obj = corev1.Node{ObjectMeta: identityMeta(&obj.ObjectMeta)}
	case *snapshotv1.VolumeSnapshot:
		transformSnapshot(obj)
	case *snapshotv1.VolumeSnapshotContent:
		transformContent(obj)
	}
	return object, nil
}

// transformSnapshot keeps only the labels and annotations that schedules set.
func transformSnapshot(s *snapshotv1.VolumeSnapshot) {
	kube.KeepAnnotations(&s.ObjectMeta, snapshot.ScheduleRun, snapshot.ScheduleRunID)
	internMetadata(&s.ObjectMeta)
	maps.DeleteFunc(s.Labels, func(key, _ string) bool {
		return key != snapshot.ScheduleName && key != snapshot.ScheduleUID && key != snapshot.ClaimUID
	})
	if len(s.Labels) == 0 {
		s.Labels = nil
	}
	internPtr(s.Spec.VolumeSnapshotClassName)
	if s.Status != nil {
		s.Status.Error = snapshot.CopyError(s.Status.Error)
	}
}

// transformContent keeps the references, the policy, the node, and the status.
func transformContent(c *snapshotv1.VolumeSnapshotContent) {
	kube.StripAnnotations(&c.ObjectMeta)
	internMetadata(&c.ObjectMeta)
	if c.Status != nil {
		c.Status.Error = snapshot.CopyError(c.Status.Error)
	}
	node, placed := c.Labels[snapshot.ManagedBy]
	if c.Labels = nil; placed {
		c.Labels = map[string]string{snapshot.ManagedBy: node}
	}
	ref := c.Spec.VolumeSnapshotRef
	internPtr(c.Spec.VolumeSnapshotClassName)
	c.Spec = snapshotv1.VolumeSnapshotContentSpec{
		Driver: intern(c.Spec.Driver), DeletionPolicy: snapshotv1.DeletionPolicy(intern(string(c.Spec.DeletionPolicy))),
		VolumeSnapshotClassName: c.Spec.VolumeSnapshotClassName,
		Source:                  snapshotv1.VolumeSnapshotContentSource{SnapshotHandle: c.Spec.Source.SnapshotHandle},
		VolumeSnapshotRef:       corev1.ObjectReference{Namespace: intern(ref.Namespace), Name: ref.Name, UID: ref.UID},
	}
}

// internMetadata shares what many objects have.
func internMetadata(meta *metav1.ObjectMeta) {
	meta.Namespace = intern(meta.Namespace)
	internAll(meta.Finalizers)
}

// intern returns the one copy of a text that many objects have.
func intern(text string) string { return unique.Make(text).Value() }

func internPtr(text *string) {
	if text != nil {
		*text = intern(*text)
	}
}

func internAll(texts []string) {
	for i := range texts {
		texts[i] = intern(texts[i])
	}
}

func transformClaim(c *corev1.PersistentVolumeClaim) {
	*c = corev1.PersistentVolumeClaim{
		ObjectMeta: identityMeta(&c.ObjectMeta),
		Spec:       corev1.PersistentVolumeClaimSpec{VolumeName: c.Spec.VolumeName, DataSource: c.Spec.DataSource, DataSourceRef: c.Spec.DataSourceRef},
		Status:     corev1.PersistentVolumeClaimStatus{Phase: corev1.PersistentVolumeClaimPhase(intern(string(c.Status.Phase)))},
	}
}

// transformVolume keeps the node affinity only with --enable-distributed-snapshotting.
func (o *Options) transformVolume(v *corev1.PersistentVolume) {
	spec := corev1.PersistentVolumeSpec{VolumeMode: v.Spec.VolumeMode}
	if o.Distributed {
		spec.NodeAffinity = v.Spec.NodeAffinity
	}
	if ref := v.Spec.ClaimRef; ref != nil {
		*ref = corev1.ObjectReference{Namespace: intern(ref.Namespace), Name: ref.Name, UID: ref.UID}
		spec.ClaimRef = ref
	}
	if source := v.Spec.CSI; source != nil {
		*source = corev1.CSIPersistentVolumeSource{Driver: intern(source.Driver), VolumeHandle: source.VolumeHandle}
		spec.CSI = source
	}
	*v = corev1.PersistentVolume{ObjectMeta: identityMeta(&v.ObjectMeta), Spec: spec}
	v.Labels, v.Finalizers = nil, nil
}

// identityMeta keeps what identifies an object and its version, its labels, and its
// finalizers.
func identityMeta(meta *metav1.ObjectMeta) metav1.ObjectMeta {
	internAll(meta.Finalizers)
	for key, value := range meta.Labels {
		meta.Labels[intern(key)] = value // Assigning to an existing key stores the shared copy of the key.
	}
	return metav1.ObjectMeta{
		Namespace: intern(meta.Namespace), Name: meta.Name, UID: meta.UID, ResourceVersion: meta.ResourceVersion, Generation: meta.Generation,
		CreationTimestamp: meta.CreationTimestamp, DeletionTimestamp: meta.DeletionTimestamp, Labels: meta.Labels, Finalizers: meta.Finalizers,
	}
}
