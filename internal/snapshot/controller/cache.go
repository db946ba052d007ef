package controller

import (
	"maps"
	"strings"
	"unique"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// CacheOptions narrow what the manager's cache holds of each kind to what is
// read of it, for there may be many. Objects are only ever changed by patches of
// single fields. Snapshots and claims are those of the namespaces that are worked on.
func CacheOptions(o *Options, into *cache.Options) {
	if into.ByObject == nil {
		into.ByObject = map[client.Object]cache.ByObject{}
	}
	for _, kind := range []client.Object{&corev1.PersistentVolume{}, &corev1.Node{}, &snapshotv1.VolumeSnapshotContent{}} {
		into.ByObject[kind] = cache.ByObject{Transform: o.reduce}
	}
	for _, kind := range []client.Object{&corev1.PersistentVolumeClaim{}, &snapshotv1.VolumeSnapshot{}} {
		served := cache.ByObject{Transform: o.reduce}
		if len(o.Namespaces) > 0 {
			served.Namespaces = map[string]cache.Config{}
		}
		for _, namespace := range o.Namespaces {
			served.Namespaces[namespace] = cache.Config{}
		}
		into.ByObject[kind] = served
	}
}

// reduce takes off an object what is not asked of it, before anyone else sees it.
// It changes the object itself: for what is there at the start it is called when
// the object is read and again when all of them go into the cache, and a copy each
// time would be held twice.
func (o *Options) reduce(object any) (any, error) {
	switch it := object.(type) {
	case *corev1.PersistentVolumeClaim:
		reduceClaim(it)
	case *corev1.PersistentVolume:
		o.reduceVolume(it)
	case *corev1.Node:
		*it = corev1.Node{ObjectMeta: identity(&it.ObjectMeta)}
	case *snapshotv1.VolumeSnapshot:
		reduceSnapshot(it)
	case *snapshotv1.VolumeSnapshotContent:
		reduceContent(it)
	}
	return object, nil
}

// reduceSnapshot keeps of the labels those that this program has put there, which are
// the schedules'.
func reduceSnapshot(s *snapshotv1.VolumeSnapshot) {
	lighten(&s.ObjectMeta)
	maps.DeleteFunc(s.Labels, func(key, _ string) bool {
		domain, _, _ := strings.Cut(key, "/")
		return domain != ownDomain && !strings.HasSuffix(domain, "."+ownDomain)
	})
	if len(s.Labels) == 0 {
		s.Labels = nil
	}
	shareOne(s.Spec.VolumeSnapshotClassName)
}

// ownDomain is what the program's own labels begin with, or with a part of it.
const ownDomain = "holdfast.io"

// reduceContent keeps whose it is and by what class, whether it was there before, its
// node, and what the driver's half says.
func reduceContent(c *snapshotv1.VolumeSnapshotContent) {
	lighten(&c.ObjectMeta)
	node, placed := c.Labels[snapshot.ManagedBy]
	if c.Labels = nil; placed {
		c.Labels = map[string]string{snapshot.ManagedBy: node}
	}
	ref := c.Spec.VolumeSnapshotRef
	shareOne(c.Spec.VolumeSnapshotClassName)
	c.Spec = snapshotv1.VolumeSnapshotContentSpec{
		Driver: one(c.Spec.Driver), DeletionPolicy: snapshotv1.DeletionPolicy(one(string(c.Spec.DeletionPolicy))),
		VolumeSnapshotClassName: c.Spec.VolumeSnapshotClassName,
		Source:                  snapshotv1.VolumeSnapshotContentSource{SnapshotHandle: c.Spec.Source.SnapshotHandle},
		VolumeSnapshotRef:       corev1.ObjectReference{Namespace: one(ref.Namespace), Name: ref.Name, UID: ref.UID},
	}
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

func shareOne(text *string) {
	if text != nil {
		*text = one(*text)
	}
}

func share(texts []string) {
	for i := range texts {
		texts[i] = one(texts[i])
	}
}

func reduceClaim(c *corev1.PersistentVolumeClaim) {
	*c = corev1.PersistentVolumeClaim{
		ObjectMeta: identity(&c.ObjectMeta),
		Spec:       corev1.PersistentVolumeClaimSpec{VolumeName: c.Spec.VolumeName, DataSource: c.Spec.DataSource, DataSourceRef: c.Spec.DataSourceRef},
		Status:     corev1.PersistentVolumeClaimStatus{Phase: corev1.PersistentVolumeClaimPhase(one(string(c.Status.Phase)))},
	}
}

// reduceVolume keeps the nodes that a volume can be used on where somebody asks
// for them.
func (o *Options) reduceVolume(v *corev1.PersistentVolume) {
	spec := corev1.PersistentVolumeSpec{VolumeMode: v.Spec.VolumeMode}
	if o.Distributed {
		spec.NodeAffinity = v.Spec.NodeAffinity
	}
	if ref := v.Spec.ClaimRef; ref != nil {
		*ref = corev1.ObjectReference{Namespace: one(ref.Namespace), Name: ref.Name, UID: ref.UID}
		spec.ClaimRef = ref
	}
	if source := v.Spec.CSI; source != nil {
		*source = corev1.CSIPersistentVolumeSource{Driver: one(source.Driver), VolumeHandle: source.VolumeHandle}
		spec.CSI = source
	}
	*v = corev1.PersistentVolume{ObjectMeta: identity(&v.ObjectMeta), Spec: spec}
	v.Labels, v.Finalizers = nil, nil
}

// identity is what says which object it is, since when, which state of it, and
// what selects or keeps it.
func identity(of *metav1.ObjectMeta) metav1.ObjectMeta {
	share(of.Finalizers)
	for key, value := range of.Labels {
		of.Labels[one(key)] = value // The map takes the key that it is given, which others have too.
	}
	return metav1.ObjectMeta{
		Namespace: one(of.Namespace), Name: of.Name, UID: of.UID, ResourceVersion: of.ResourceVersion, Generation: of.Generation,
		CreationTimestamp: of.CreationTimestamp, DeletionTimestamp: of.DeletionTimestamp, Labels: of.Labels, Finalizers: of.Finalizers,
	}
}
