package provision

import (
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/provision/pending"
	"github.com/holdfast-io/holdfast/internal/topology"
)

// CacheOptions restricts the manager's cache to the Leases of our pending operations, and
// to whole claims and volumes only if they are ours. Of other claims and volumes, which
// can be many, it keeps the fields that decisions read.
//
// A cached object is never updated, because the update would clear the missing fields. What
// is updated was read from the API server. All other writes are patches of single fields.
func CacheOptions(o *Options, into *cache.Options) {
	topology.CacheOptions(into)
	into.ByObject[&coordinationv1.Lease{}] = cache.ByObject{
		Namespaces: map[string]cache.Config{o.Namespace: {LabelSelector: pending.OwnSelector(o.Driver, o.Node.Name)}},
	}
	into.ByObject[&corev1.PersistentVolumeClaim{}] = cache.ByObject{Transform: o.reduce}
	into.ByObject[&corev1.PersistentVolume{}] = cache.ByObject{Transform: o.reduce}
}

// claimAnnotations are the annotations of a claim that decisions read. Secrets of a class
// may be named by any other; those are read from the API server.
var claimAnnotations = []string{
	kube.AnnStorageProvisioner, kube.AnnBetaStorageProvisioner, kube.AnnSelectedNode, kube.AnnAlphaSelectedNode,
	kube.AnnBetaStorageClass, kube.AnnMigratedTo,
}

// reduce is the cache's transform. It changes the object itself: client-go transforms the
// objects of the initial list when it reads them and again when it replaces the store,
// and would keep the originals until then.
func (o *Options) reduce(object any) (any, error) {
	switch it := object.(type) {
	case *corev1.PersistentVolumeClaim:
		if !o.needsVolume(it) {
			*it = *reduceClaim(it)
		}
		kube.KeepAnnotations(&it.ObjectMeta, claimAnnotations...)
	case *corev1.PersistentVolume:
		kube.StripAnnotations(&it.ObjectMeta)
		if !o.isOurVolume(it) {
			*it = *reduceVolume(it)
		}
	}
	return object, nil
}

// needsVolume reports whether a claim waits for a volume from us.
func (o *Options) needsVolume(claim *corev1.PersistentVolumeClaim) bool {
	return claim.Spec.VolumeName == "" && o.isOurClaim(claim)
}

// isOurVolume reports whether a volume is the driver's, or one of the in-tree plugin that
// the driver replaces.
func (o *Options) isOurVolume(volume *corev1.PersistentVolume) bool {
	return volume.Spec.CSI != nil && volume.Spec.CSI.Driver == o.Driver || o.Plugin.HasVolume(volume)
}

// reduceClaim reduces a claim that does not wait for a volume from us. Its clones wait for
// its volume and its phase, and source protection reads the finalizer of cloned claims.
func reduceClaim(claim *corev1.PersistentVolumeClaim) *corev1.PersistentVolumeClaim {
	small := &corev1.PersistentVolumeClaim{ObjectMeta: kube.IdentityMeta(&claim.ObjectMeta)}
	for _, f := range claim.Finalizers {
		if f == kube.CloneSourceFinalizer {
			small.Finalizers = []string{kube.CloneSourceFinalizer}
		}
	}
	small.Spec.VolumeName, small.Status.Phase = claim.Spec.VolumeName, claim.Status.Phase
	return small
}

// reduceVolume reduces a volume that is not our driver's. A claim that has one needs none
// from us, so the UID of its claim stays.
func reduceVolume(volume *corev1.PersistentVolume) *corev1.PersistentVolume {
	small := &corev1.PersistentVolume{ObjectMeta: kube.IdentityMeta(&volume.ObjectMeta)}
	if ref := volume.Spec.ClaimRef; ref != nil && ref.UID != "" {
		small.Spec.ClaimRef = &corev1.ObjectReference{UID: ref.UID}
	}
	return small
}
