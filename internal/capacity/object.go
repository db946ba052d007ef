package capacity

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strings"

	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/topology"
)

// Labels of the objects. They are those of the external-provisioner, so that it and
// this role can take over from each other. The second distinguishes the objects from
// those of provisioners that run on each node.
const (
	LabelDriver    = "csi.storage.k8s.io/drivername"
	LabelManagedBy = "csi.storage.k8s.io/managed-by"
	managerName    = "external-provisioner"
)

const generateName = "csisc-"

// A pair is a class and the string of a segment, which one object is about. It is
// the key of the work queue.
type pair struct{ class, segment string }

// String is the key of the index.
func (p pair) String() string { return p.class + " " + p.segment }

// pairOf is the pair that an object is about. An object whose topology cannot be a
// segment, such as one for no nodes, gets a pair that no class and segment have.
func pairOf(o *storagev1.CSIStorageCapacity) pair {
	p := pair{class: o.StorageClassName}
	if o.NodeTopology == nil || len(o.NodeTopology.MatchExpressions) > 0 {
		p.segment = "other: " + metav1.FormatLabelSelector(o.NodeTopology)
	} else {
		p.segment = topology.Segment(o.NodeTopology.MatchLabels).String()
	}
	return p
}

// labels are the labels of our objects.
func (o *Options) labels() map[string]string {
	return map[string]string{LabelDriver: o.Driver, LabelManagedBy: o.managedBy()}
}

// managedBy distinguishes our objects from those of the provisioners on other
// nodes.
func (o *Options) managedBy() string {
	if o.Node == "" {
		return managerName
	}
	return kube.NodeLabelValue(managerName, o.Node)
}

// isOurs reports whether this process manages an object.
func (o *Options) isOurs(object *storagev1.CSIStorageCapacity) bool {
	return object.Namespace == o.Namespace && object.Labels[LabelDriver] == o.Driver && object.Labels[LabelManagedBy] == o.managedBy()
}

// object is the desired object of a pair. Its name is derived from the pair, so
// that there is one object even if two processes create it, or one process twice.
func (o *Options) object(s *state) *storagev1.CSIStorageCapacity {
	hash := sha256.Sum256([]byte(strings.Join(append(o.identity(), s.pair.class, s.pair.segment), "\x00")))
	object := &storagev1.CSIStorageCapacity{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: o.Namespace, Name: generateName + hex.EncodeToString(hash[:8]), GenerateName: generateName, Labels: o.labels(),
		},
		NodeTopology:     &metav1.LabelSelector{MatchLabels: s.segment},
		StorageClassName: s.pair.class,
		Capacity:         resource.NewQuantity(s.response.GetAvailableCapacity(), resource.BinarySI),
	}
	if largest := s.response.GetMaximumVolumeSize(); largest != nil {
		object.MaximumVolumeSize = resource.NewQuantity(largest.GetValue(), resource.BinarySI)
	}
	if s.owner != nil {
		object.OwnerReferences = []metav1.OwnerReference{*s.owner}
	}
	return object
}

// identity is what distinguishes the names of our objects, besides the pair: nodes
// may share a segment.
func (o *Options) identity() []string {
	if o.Node == "" {
		return []string{o.Driver}
	}
	return []string{o.Driver, o.Node}
}

// updated is an existing object with the desired content, or nil if it has that
// already.
func updated(existing, desired *storagev1.CSIStorageCapacity) *storagev1.CSIStorageCapacity {
	owners, unchanged := updatedOwners(existing.OwnerReferences, desired.OwnerReferences)
	if unchanged && equal(existing.Capacity, desired.Capacity) && equal(existing.MaximumVolumeSize, desired.MaximumVolumeSize) {
		return nil
	}
	existing = existing.DeepCopy()
	existing.Capacity, existing.MaximumVolumeSize, existing.OwnerReferences = desired.Capacity, desired.MaximumVolumeSize, owners
	return existing
}

// updatedOwners are the existing owners with the desired controller, of which there
// can be only one.
func updatedOwners(existing, desired []metav1.OwnerReference) (owners []metav1.OwnerReference, unchanged bool) {
	controls := func(o metav1.OwnerReference) bool { return o.Controller != nil && *o.Controller }
	at := slices.IndexFunc(existing, controls)
	switch {
	case at < 0 && len(desired) == 0:
		return existing, true
	case at >= 0 && len(desired) > 0 && existing[at].UID == desired[0].UID:
		return existing, true
	}
	return append(slices.DeleteFunc(slices.Clone(existing), controls), desired...), false
}

func equal(a, b *resource.Quantity) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Cmp(*b) == 0
}

// driverParameters are a class's parameters without those that are reserved for
// Kubernetes.
func driverParameters(class *storagev1.StorageClass) map[string]string {
	left := maps.Clone(class.Parameters)
	maps.DeleteFunc(left, func(key, _ string) bool { return strings.HasPrefix(key, kube.ReservedParameterPrefix) })
	return left
}
