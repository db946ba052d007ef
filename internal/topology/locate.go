package topology

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// Location is what a volume's node affinity says about one node.
type Location int

const (
	// Unknown means that the affinity may hold on this node, and on others too.
	Unknown Location = iota
	// Here means that the affinity holds on this node and on no other.
	Here
	// Elsewhere means that the affinity does not hold on this node.
	Elsewhere
)

// nodeName is the field of a node that an affinity can ask for.
const nodeName = "metadata.name"

// Locate tells whether a volume with the affinity is on the node of this name,
// which is in the segment. Several nodes may be in one segment, and nothing is
// known here about the others. So only the node's own name tells it apart, where
// every term asks for it: by the field, by the label kubernetes.io/hostname, or by
// a label of the segment whose value it is.
func (s Segment) Locate(affinity *corev1.VolumeNodeAffinity, node string) Location {
	if affinity == nil || affinity.Required == nil || len(affinity.Required.NodeSelectorTerms) == 0 {
		return Unknown
	}
	first := s.locateTerm(&affinity.Required.NodeSelectorTerms[0], node)
	for i := range affinity.Required.NodeSelectorTerms {
		if s.locateTerm(&affinity.Required.NodeSelectorTerms[i], node) != first {
			return Unknown // One term is enough for the volume to be elsewhere, or here.
		}
	}
	return first
}

func (s Segment) locateTerm(term *corev1.NodeSelectorTerm, node string) Location {
	notNamed := func(r corev1.NodeSelectorRequirement) bool { return r.Key == nodeName && excludesValue(r, node) }
	if slices.ContainsFunc(term.MatchFields, notNamed) || slices.ContainsFunc(term.MatchExpressions, s.isExcludedBy) {
		return Elsewhere
	}
	byField := func(r corev1.NodeSelectorRequirement) bool { return r.Key == nodeName && requiresValue(r, node) }
	byLabel := func(r corev1.NodeSelectorRequirement) bool {
		return (r.Key == corev1.LabelHostname || s[r.Key] == node) && requiresValue(r, node)
	}
	if slices.ContainsFunc(term.MatchFields, byField) || slices.ContainsFunc(term.MatchExpressions, byLabel) {
		return Here
	}
	return Unknown
}

// requiresValue tells whether a requirement allows this value only.
func requiresValue(r corev1.NodeSelectorRequirement, value string) bool {
	return r.Operator == corev1.NodeSelectorOpIn && len(r.Values) == 1 && r.Values[0] == value
}
