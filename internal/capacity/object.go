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
	LabelDriver  = "csi.storage.k8s.io/drivername"
	LabelManager = "csi.storage.k8s.io/managed-by"
	manager      = "external-provisioner"
)

const (
	generateName = "csisc-"
	// prefix of the class parameters that are for Kubernetes, not for the driver.
	prefix = "csi.storage.k8s.io/"
)

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
	return map[string]string{LabelDriver: o.Driver, LabelManager: o.manager()}
}

// manager tells our objects from those of the provisioners on other nodes.
func (o *Options) manager() string {
	if o.Node == "" {
		return manager
	}
	return kube.NodeLabelValue(manager, o.Node)
}

// ours tells whether an object is among those that we look after.
func (o *Options) ours(object *storagev1.CSIStorageCapacity) bool {
	return object.Namespace == o.Namespace && object.Labels[LabelDriver] == o.Driver && object.Labels[LabelManager] == o.manager()
}

// object is how the object of a wanted pair should be. Its name follows from
// what it is about: whoever makes it, and however little it knows of what its
// predecessor did, there is one.
func (o *Options) object(s *seen) *storagev1.CSIStorageCapacity {
	hash := sha256.Sum256([]byte(strings.Join(append(o.whose(), s.pair.class, s.pair.segment), "\x00")))
	object := &storagev1.CSIStorageCapacity{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: o.Namespace, Name: generateName + hex.EncodeToString(hash[:8]), GenerateName: generateName, Labels: o.labels(),
		},
		NodeTopology:     &metav1.LabelSelector{MatchLabels: s.segment},
		StorageClassName: s.pair.class,
		Capacity:         resource.NewQuantity(s.room.GetAvailableCapacity(), resource.BinarySI),
	}
	if largest := s.room.GetMaximumVolumeSize(); largest != nil {
		object.MaximumVolumeSize = resource.NewQuantity(largest.GetValue(), resource.BinarySI)
	}
	if s.owner != nil {
		object.OwnerReferences = []metav1.OwnerReference{*s.owner}
	}
	return object
}

// whose objects ours are, apart from what they are about: nodes may share a
// segment.
func (o *Options) whose() []string {
	if o.Node == "" {
		return []string{o.Driver}
	}
	return []string{o.Driver, o.Node}
}

// amended is an object that is there with what it should say, or nil if it says
// that already.
func amended(there, should *storagev1.CSIStorageCapacity) *storagev1.CSIStorageCapacity {
	owners, right := amendedOwners(there.OwnerReferences, should.OwnerReferences)
	if right && equal(there.Capacity, should.Capacity) && equal(there.MaximumVolumeSize, should.MaximumVolumeSize) {
		return nil
	}
	there = there.DeepCopy()
	there.Capacity, there.MaximumVolumeSize, there.OwnerReferences = should.Capacity, should.MaximumVolumeSize, owners
	return there
}

// amendedOwners are the owners that are there with the right controller among
// them, of which there can be one.
func amendedOwners(there, should []metav1.OwnerReference) (owners []metav1.OwnerReference, right bool) {
	controls := func(o metav1.OwnerReference) bool { return o.Controller != nil && *o.Controller }
	at := slices.IndexFunc(there, controls)
	switch {
	case at < 0 && len(should) == 0:
		return there, true
	case at >= 0 && len(should) > 0 && there[at].UID == should[0].UID:
		return there, true
	}
	return append(slices.DeleteFunc(slices.Clone(there), controls), should...), false
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
	maps.DeleteFunc(left, func(key, _ string) bool { return strings.HasPrefix(key, prefix) })
	return left
}
