package provision

import (
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/provision/pending"
	"github.com/holdfast-io/holdfast/internal/topology"
)

// CacheOptions narrow what the manager's cache holds: of Leases our intents, and
// of claims and volumes whole objects only where they are ours to act upon. All
// others are reduced to what decisions read of them, for there may be many.
//
// A reduced object lacks fields, so it is never written back as a whole. What is
// updated was read from the API server itself, or is a claim that waits for us;
// all other writes are patches of single fields.
func CacheOptions(o *Options, into *cache.Options) {
	topology.CacheOptions(into)
	into.ByObject[&coordinationv1.Lease{}] = cache.ByObject{
		Namespaces: map[string]cache.Config{o.Namespace: {LabelSelector: pending.OwnSelector(o.Driver, o.Node.Name)}},
	}
	into.ByObject[&corev1.PersistentVolumeClaim{}] = cache.ByObject{Transform: o.reduce}
	into.ByObject[&corev1.PersistentVolume{}] = cache.ByObject{Transform: o.reduce}
}

// reduce changes an object before anyone else sees it: the object itself, for what
// is there at the start is reduced when it is read and again when all of it goes
// into the cache, and copies would be held until then.
func (o *Options) reduce(object any) (any, error) {
	switch it := object.(type) {
	case *corev1.PersistentVolumeClaim:
		it.ManagedFields = nil
		if !o.needsVolume(it) {
			*it = *reduceClaim(it)
		}
	case *corev1.PersistentVolume:
		it.ManagedFields = nil
		if !o.isOurVolume(it) {
			*it = *reduceVolume(it)
		}
	}
	return object, nil
}

// needsVolume tells whether a claim waits for a volume from us.
func (o *Options) needsVolume(claim *corev1.PersistentVolumeClaim) bool {
	return claim.Spec.VolumeName == "" && o.isOurClaim(claim)
}

// isOurVolume tells whether a volume is the driver's, or one of the plugin whose place
// it has taken.
func (o *Options) isOurVolume(volume *corev1.PersistentVolume) bool {
	return volume.Spec.CSI != nil && volume.Spec.CSI.Driver == o.Driver || o.Plugin.HasVolume(volume)
}

// reduceClaim keeps of a claim that waits for nothing, or for somebody else,
// whether it has a volume, for its clones wait for that, and whether it is a
// cloned one on its way out.
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

// reduceVolume keeps of a volume of another driver, or of none, whom it is for:
// a claim that has one needs none from us.
func reduceVolume(volume *corev1.PersistentVolume) *corev1.PersistentVolume {
	small := &corev1.PersistentVolume{ObjectMeta: kube.IdentityMeta(&volume.ObjectMeta)}
	if ref := volume.Spec.ClaimRef; ref != nil && ref.UID != "" {
		small.Spec.ClaimRef = &corev1.ObjectReference{UID: ref.UID}
	}
	return small
}
