package topology

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// Node n1 is in zone a, which other nodes may share, and its driver calls it d1.
func TestLocate(t *testing.T) {
	is := func(key string, operator corev1.NodeSelectorOperator, values ...string) corev1.NodeSelectorRequirement {
		return corev1.NodeSelectorRequirement{Key: key, Operator: operator, Values: values}
	}
	const (
		in, notIn      = corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn
		exists, absent = corev1.NodeSelectorOpExists, corev1.NodeSelectorOpDoesNotExist
	)
	all := func(one ...corev1.NodeSelectorRequirement) corev1.NodeSelectorTerm {
		return corev1.NodeSelectorTerm{MatchExpressions: one}
	}
	field := func(operator corev1.NodeSelectorOperator, name string) corev1.NodeSelectorTerm {
		return corev1.NodeSelectorTerm{MatchFields: []corev1.NodeSelectorRequirement{is("metadata.name", operator, name)}}
	}
	zoned := field(in, "n1")
	zoned.MatchExpressions = []corev1.NodeSelectorRequirement{is("zone", in, "b")}
	tests := map[string]struct {
		terms []corev1.NodeSelectorTerm
		want  Location
	}{
		"the driver's label names the node":                  {[]corev1.NodeSelectorTerm{all(is("host", in, "n1"))}, Here},
		"it names another node":                              {[]corev1.NodeSelectorTerm{all(is("host", in, "n2"))}, Elsewhere},
		"it names the node, in its zone":                     {[]corev1.NodeSelectorTerm{all(is("host", in, "n1"), is("zone", in, "a"))}, Here},
		"it names the node, in another zone":                 {[]corev1.NodeSelectorTerm{all(is("host", in, "n1"), is("zone", in, "b"))}, Elsewhere},
		"it names the node and another, in two terms":        {[]corev1.NodeSelectorTerm{all(is("host", in, "n2")), all(is("host", in, "n1"))}, Unknown},
		"it names the node and another, in one term":         {[]corev1.NodeSelectorTerm{all(is("host", in, "n2", "n1"))}, Unknown},
		"it names two others":                                {[]corev1.NodeSelectorTerm{all(is("host", in, "n2")), all(is("host", in, "n3"))}, Elsewhere},
		"two terms name the node":                            {[]corev1.NodeSelectorTerm{all(is("host", in, "n1")), all(is("host", in, "n1"), is("disk", exists))}, Here},
		"a label of the segment that others may share":       {[]corev1.NodeSelectorTerm{all(is("zone", in, "a"))}, Unknown},
		"a label of another segment":                         {[]corev1.NodeSelectorTerm{all(is("zone", in, "b"))}, Elsewhere},
		"the driver's own id of the node may be shared":      {[]corev1.NodeSelectorTerm{all(is("id", in, "d1"))}, Unknown},
		"the driver's own id of another node":                {[]corev1.NodeSelectorTerm{all(is("id", in, "d2"))}, Elsewhere},
		"the hostname is the node's name":                    {[]corev1.NodeSelectorTerm{all(is("kubernetes.io/hostname", in, "n1"))}, Here},
		"the hostname may be this node's under another name": {[]corev1.NodeSelectorTerm{all(is("kubernetes.io/hostname", in, "n1.example.com"))}, Unknown},
		"the field is the node's name":                       {[]corev1.NodeSelectorTerm{field(in, "n1")}, Here},
		"the field is another node's name":                   {[]corev1.NodeSelectorTerm{field(in, "n2")}, Elsewhere},
		"the field is not this node's name":                  {[]corev1.NodeSelectorTerm{field(notIn, "n1")}, Elsewhere},
		"the field is not another node's name":               {[]corev1.NodeSelectorTerm{field(notIn, "n2")}, Unknown},
		"the field is the node's name, in another zone":      {[]corev1.NodeSelectorTerm{zoned}, Elsewhere},
		"a label of another kind may be the node's":          {[]corev1.NodeSelectorTerm{all(is("disk", in, "n1"))}, Unknown},
		"all but another node":                               {[]corev1.NodeSelectorTerm{all(is("host", notIn, "n2"))}, Unknown},
		"all but this node":                                  {[]corev1.NodeSelectorTerm{all(is("host", notIn, "n1"))}, Elsewhere},
		"all nodes with the label":                           {[]corev1.NodeSelectorTerm{all(is("host", exists))}, Unknown},
		"all nodes without the label":                        {[]corev1.NodeSelectorTerm{all(is("host", absent))}, Elsewhere},
		"a comparison is ignored":                            {[]corev1.NodeSelectorTerm{all(is("host", corev1.NodeSelectorOpGt, "7"))}, Unknown},
		"a term without requirements":                        {[]corev1.NodeSelectorTerm{{}}, Unknown},
		"no terms":                                           {nil, Unknown},
	}
	s := Segment{"zone": "a", "host": "n1", "id": "d1"}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			affinity := &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: tt.terms}}
			if got := s.Locate(affinity, "n1"); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
	for _, none := range []*corev1.VolumeNodeAffinity{nil, {}} {
		if got := s.Locate(none, "n1"); got != Unknown {
			t.Errorf("got %d for a volume without affinity", got)
		}
	}
}
