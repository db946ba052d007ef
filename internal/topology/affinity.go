package topology

import (
	"slices"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
)

// NodeAffinity keeps pods where a volume can be reached, as the driver said; it
// is nil for everywhere.
func NodeAffinity(accessible []*csipb.Topology) *corev1.VolumeNodeAffinity {
	var terms []corev1.NodeSelectorTerm
	for _, t := range accessible {
		s := Segment(t.GetSegments())
		var all []corev1.NodeSelectorRequirement
		for _, key := range s.keys() {
			all = append(all, corev1.NodeSelectorRequirement{Key: key, Operator: corev1.NodeSelectorOpIn, Values: []string{s[key]}})
		}
		if len(all) > 0 {
			terms = append(terms, corev1.NodeSelectorTerm{MatchExpressions: all})
		}
	}
	if len(terms) == 0 {
		return nil
	}
	return &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: terms}}
}

// Reaches tells whether a volume with the affinity may be reached from the
// segment: none of some term's values speak against it. Other operators than
// In, which only people write, speak against nothing.
func (s Segment) Reaches(affinity *corev1.VolumeNodeAffinity) bool {
	if affinity == nil || affinity.Required == nil {
		return true
	}
	return slices.ContainsFunc(affinity.Required.NodeSelectorTerms, func(term corev1.NodeSelectorTerm) bool {
		return !slices.ContainsFunc(term.MatchExpressions, s.excluded)
	})
}

func (s Segment) excluded(by corev1.NodeSelectorRequirement) bool {
	value, ok := s[by.Key]
	return ok && by.Operator == corev1.NodeSelectorOpIn && !slices.Contains(by.Values, value)
}

// Holder tells whether the segment has what an affinity asks for: all of some
// term, or no affinity. It is the question before something is done to a
// volume, so what the segment alone cannot answer, such as a term about other
// labels or about names of nodes, speaks against it.
func (s Segment) Holder(affinity *corev1.VolumeNodeAffinity) bool {
	if affinity == nil || affinity.Required == nil {
		return true
	}
	return slices.ContainsFunc(affinity.Required.NodeSelectorTerms, func(term corev1.NodeSelectorTerm) bool {
		return len(term.MatchFields) == 0 && len(term.MatchExpressions) > 0 &&
			!slices.ContainsFunc(term.MatchExpressions, func(r corev1.NodeSelectorRequirement) bool { return !s.has(r) })
	})
}

func (s Segment) has(wanted corev1.NodeSelectorRequirement) bool {
	value, ok := s[wanted.Key]
	switch wanted.Operator {
	case corev1.NodeSelectorOpIn:
		return ok && slices.Contains(wanted.Values, value)
	case corev1.NodeSelectorOpNotIn:
		return ok && !slices.Contains(wanted.Values, value)
	case corev1.NodeSelectorOpExists:
		return ok
	default:
		return false
	}
}
