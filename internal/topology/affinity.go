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

// CanReach tells whether a volume with the affinity may be reached from the
// segment: no requirement of some term speaks against it. A requirement about a
// label that is not the segment's does not.
func (s Segment) CanReach(affinity *corev1.VolumeNodeAffinity) bool {
	if affinity == nil || affinity.Required == nil {
		return true
	}
	return slices.ContainsFunc(affinity.Required.NodeSelectorTerms, func(term corev1.NodeSelectorTerm) bool {
		return !slices.ContainsFunc(term.MatchExpressions, s.isExcludedBy)
	})
}

func (s Segment) isExcludedBy(by corev1.NodeSelectorRequirement) bool {
	value, ok := s[by.Key]
	return ok && excludesValue(by, value)
}

// excludesValue tells whether a requirement about a label, or a field, does not hold
// if it has this value. Gt and Lt are not looked at.
func excludesValue(r corev1.NodeSelectorRequirement, value string) bool {
	switch r.Operator {
	case corev1.NodeSelectorOpIn:
		return !slices.Contains(r.Values, value)
	case corev1.NodeSelectorOpNotIn:
		return slices.Contains(r.Values, value)
	case corev1.NodeSelectorOpDoesNotExist:
		return true
	default:
		return false
	}
}
