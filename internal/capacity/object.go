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

// Labels by which the objects are found, unchanged from the csi-provisioner
// that role csi-provisioner replaces, so that either can take over from the
// other. The second tells them from those of provisioners on single nodes.
const (
	LabelDriver    = "csi.storage.k8s.io/drivername"
	LabelManagedBy = "csi.storage.k8s.io/managed-by"
	managerName    = "external-provisioner"
)

const generateName = "csisc-"

// A pair is what one object is about: a class, and a segment by its text.
// Equal pairs are equal keys of the queue.
type pair struct{ class, segment string }

// String is the pair as a key of the index.
func (p pair) String() string { return p.class + " " + p.segment }

// pairOf is what an object is about. One that is about nodes in a way in which
// no segment is, such as none at all, gets a pair that nobody wants.
func pairOf(o *storagev1.CSIStorageCapacity) pair {
	p := pair{class: o.StorageClassName}
	if o.NodeTopology == nil || len(o.NodeTopology.MatchExpressions) > 0 {
		p.segment = "other: " + metav1.FormatLabelSelector(o.NodeTopology)
	} else {
		p.segment = topology.Segment(o.NodeTopology.MatchLabels).String()
	}
	return p
}

// labels of our objects.
func (o *Options) labels() map[string]string {
	return map[string]string{LabelDriver: o.Driver, LabelManagedBy: o.managedBy()}
}

// managedBy tells our objects from those of the provisioners on other nodes.
func (o *Options) managedBy() string {
	if o.Node == "" {
		return managerName
	}
	return kube.NodeLabelValue(managerName, o.Node)
}

// isOurs tells whether an object is among those that we look after.
func (o *Options) isOurs(object *storagev1.CSIStorageCapacity) bool {
	return object.Namespace == o.Namespace && object.Labels[LabelDriver] == o.Driver && object.Labels[LabelManagedBy] == o.managedBy()
}

// object is how the object of a wanted pair should be. Its name follows from
// what it is about: whoever makes it, and however little it knows of what its
// predecessor did, there is one.
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

// identity objects ours are, apart from what they are about: nodes may share a
// segment.
func (o *Options) identity() []string {
	if o.Node == "" {
		return []string{o.Driver}
	}
	return []string{o.Driver, o.Node}
}

// updated is an object that is there with what it should say, or nil if it says
// that already.
func updated(existing, desired *storagev1.CSIStorageCapacity) *storagev1.CSIStorageCapacity {
	owners, unchanged := updatedOwners(existing.OwnerReferences, desired.OwnerReferences)
	if unchanged && equal(existing.Capacity, desired.Capacity) && equal(existing.MaximumVolumeSize, desired.MaximumVolumeSize) {
		return nil
	}
	existing = existing.DeepCopy()
	existing.Capacity, existing.MaximumVolumeSize, existing.OwnerReferences = desired.Capacity, desired.MaximumVolumeSize, owners
	return existing
}

// updatedOwners are the owners that are there with the right controller among
// them, of which there can be one.
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

// driverParameters are a class's parameters without those for Kubernetes.
func driverParameters(class *storagev1.StorageClass) map[string]string {
	left := maps.Clone(class.Parameters)
	maps.DeleteFunc(left, func(key, _ string) bool { return strings.HasPrefix(key, kube.ReservedParameterPrefix) })
	return left
}
