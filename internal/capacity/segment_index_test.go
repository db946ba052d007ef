package capacity

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-io/holdfast/internal/topology"
)

func segmentsOf(all ...topology.Segment) segmentSet {
	set := segmentSet{}
	for _, s := range all {
		set[s.String()] = s
	}
	return set
}

func required(terms ...[]corev1.NodeSelectorRequirement) *corev1.VolumeNodeAffinity {
	n := &corev1.NodeSelector{}
	for _, term := range terms {
		n.NodeSelectorTerms = append(n.NodeSelectorTerms, corev1.NodeSelectorTerm{MatchExpressions: term})
	}
	return &corev1.VolumeNodeAffinity{Required: n}
}

func in(key string, values ...string) corev1.NodeSelectorRequirement {
	return corev1.NodeSelectorRequirement{Key: key, Operator: corev1.NodeSelectorOpIn, Values: values}
}

// The index finds what a walk through all segments finds.
func TestTheIndexFindsWhatAWalkFinds(t *testing.T) {
	all := segmentsOf(
		topology.Segment{"zone": "a", "host": "1"}, topology.Segment{"zone": "a", "host": "2"}, topology.Segment{"zone": "b", "host": "3"},
		topology.Segment{"zone": "b"}, topology.Segment{"rack": "r"},
	)
	term := func(r ...corev1.NodeSelectorRequirement) []corev1.NodeSelectorRequirement { return r }
	tests := map[string]*corev1.VolumeNodeAffinity{
		"from everywhere":                  nil,
		"nothing required":                 {},
		"no term":                          required(),
		"an empty term":                    required(term()),
		"one zone":                         required(term(in("zone", "a"))),
		"one host, which some do not know": required(term(in("host", "3"))),
		"a host in a zone":                 required(term(in("zone", "a"), in("host", "2"))),
		"a host in another zone":           required(term(in("zone", "b"), in("host", "2"))),
		"two terms":                        required(term(in("zone", "a")), term(in("host", "3"))),
		"several values":                   required(term(in("zone", "a", "b"))),
		"a key that no segment has":        required(term(in("region", "x"))),
		"such a key and a zone":            required(term(in("region", "x"), in("zone", "b"))),
		"a zone that is gone":              required(term(in("zone", "c"))),
		"not in a zone":                    required(term(corev1.NodeSelectorRequirement{Key: "zone", Operator: corev1.NodeSelectorOpNotIn, Values: []string{"a"}})),
		"a zone, and no host of that name": required(term(in("zone", "a"), corev1.NodeSelectorRequirement{Key: "host", Operator: corev1.NodeSelectorOpDoesNotExist})),
	}
	for name, affinity := range tests {
		t.Run(name, func(t *testing.T) {
			var want []string
			for _, text := range slices.Sorted(maps.Keys(all)) {
				if all[text].CanReach(affinity) {
					want = append(want, text)
				}
			}
			if diff := cmp.Diff(want, newSegmentIndex(all).reachable(affinity)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAVolumeIsComparedWithItsOwnSegmentsOnly(t *testing.T) {
	set := segmentSet{}
	for i := range 5000 {
		s := topology.Segment{"host": fmt.Sprint("n", i), "zone": fmt.Sprint("z", i%3)}
		set[s.String()] = s
	}
	x := newSegmentIndex(set)
	for want, affinity := range map[int]*corev1.VolumeNodeAffinity{
		1: required([]corev1.NodeSelectorRequirement{in("zone", "z1"), in("host", "n1")}),
		2: required([]corev1.NodeSelectorRequirement{in("host", "n1")}, []corev1.NodeSelectorRequirement{in("host", "n2")}),
	} {
		if got := len(x.candidates(affinity)); got != want {
			t.Errorf("a volume of %d nodes is compared with %d of 5000 segments", want, got)
		}
	}
}
