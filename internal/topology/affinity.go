package topology

import (
	"slices"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
)

// NodeAffinity is the node affinity of a volume that is accessible from these
// topologies, or nil if it is accessible from everywhere.
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

// CanReach reports whether a volume with the affinity may be accessible from the
// segment: at least one term has no requirement that excludes it. Requirements for
// labels that the segment does not have are ignored.
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

// excludesValue reports whether a requirement for a label or a field is not met by
// this value. Gt and Lt are ignored.
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
