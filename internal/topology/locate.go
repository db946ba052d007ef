package topology

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// Location is where a volume is, relative to one node, according to its node
// affinity.
type Location int

const (
	// Unknown means that the affinity may match this node, and others too.
	Unknown Location = iota
	// Here means that the affinity matches this node and no other.
	Here
	// Elsewhere means that the affinity does not match this node.
	Elsewhere
)

// nodeName is the field of nodes that an affinity can require.
const nodeName = "metadata.name"

// Locate reports whether a volume with the affinity is on a node. s is the segment
// of the node. Other nodes may be in the same segment, so the affinity identifies
// the node only if each of its terms requires the node's own name: by the field, by
// the label kubernetes.io/hostname, or by a label of the segment whose value is the
// name.
func (s Segment) Locate(affinity *corev1.VolumeNodeAffinity, node string) Location {
	if affinity == nil || affinity.Required == nil || len(affinity.Required.NodeSelectorTerms) == 0 {
		return Unknown
	}
	first := s.locateTerm(&affinity.Required.NodeSelectorTerms[0], node)
	for i := range affinity.Required.NodeSelectorTerms {
		if s.locateTerm(&affinity.Required.NodeSelectorTerms[i], node) != first {
			return Unknown // The terms are alternatives, and they disagree.
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

// requiresValue reports whether a requirement allows this value only.
func requiresValue(r corev1.NodeSelectorRequirement, value string) bool {
	return r.Operator == corev1.NodeSelectorOpIn && len(r.Values) == 1 && r.Values[0] == value
}
