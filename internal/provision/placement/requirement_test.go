package placement

import (
	"strings"
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-io/holdfast/internal/topology"
)

func zone(names ...string) []topology.Segment {
	var all []topology.Segment
	for _, n := range names {
		all = append(all, topology.Segment{"zone": n})
	}
	return all
}

func inZone(name, zone string) NodeTopology {
	return NodeTopology{Name: name, Labels: map[string]string{"zone": zone, "other": name}, Keys: []string{"zone"}}
}

func allowed(expressions ...corev1.TopologySelectorLabelRequirement) []corev1.TopologySelectorTerm {
	return []corev1.TopologySelectorTerm{{MatchLabelExpressions: expressions}}
}

// Each row of the table of [Requirement], which is that of csi-provisioner.
func TestRequirement(t *testing.T) {
	nodes := NewNodes(inZone("n3", "c"), inZone("n1", "a"), inZone("n2", "b"), inZone("n4", "b"))
	on := func(name, zone string) *NodeTopology { p := inZone(name, zone); return &p }
	ab := allowed(corev1.TopologySelectorLabelRequirement{Key: "zone", Values: []string{"b", "a"}})
	tests := map[string]struct {
		in                   Input
		requisite, preferred []topology.Segment
		err                  string
	}{
		"first consumer, strict: the selected node's segment": {
			Input{Selected: on("n2", "b"), Strict: true, Nodes: nodes}, zone("b"), zone("b"), ""},
		"first consumer, strict, inside allowedTopologies": {
			Input{Selected: on("n2", "b"), Strict: true, Nodes: nodes, Allowed: ab}, zone("b"), zone("b"), ""},
		"first consumer, strict, outside allowedTopologies": {
			Input{Selected: on("n3", "c"), Strict: true, Nodes: nodes, Allowed: ab}, nil, nil, "allowedTopologies"},
		"first consumer: all segments, the selected one first": {
			Input{Selected: on("n2", "b"), Nodes: nodes}, zone("a", "b", "c"), zone("b", "c", "a"), ""},
		"first consumer: allowedTopologies, the selected one first": {
			Input{Selected: on("n2", "b"), Nodes: nodes, Allowed: ab}, zone("a", "b"), zone("b", "a"), ""},
		"first consumer, outside allowedTopologies": {
			Input{Selected: on("n3", "c"), Nodes: nodes, Allowed: ab}, nil, nil, "node n3"},
		"first consumer, on a node that the list does not have yet": {
			Input{Selected: on("n9", "z"), Nodes: nodes}, zone("a", "b", "c", "z"), zone("z", "a", "b", "c"), ""},
		"immediate: all segments, rotated by the claim's name": {
			Input{ClaimName: "data", AllSegments: true, Nodes: nodes}, zone("a", "b", "c"), nil, ""},
		"immediate: allowedTopologies": {
			Input{ClaimName: "data", AllSegments: true, Nodes: nodes, Allowed: ab}, zone("a", "b"), nil, ""},
		"immediate: allowedTopologies, without --immediate-topology": {
			Input{ClaimName: "data", Nodes: nodes, Allowed: ab}, zone("a", "b"), nil, ""},
		"immediate: nothing":             {Input{ClaimName: "data", Nodes: nodes}, nil, nil, ""},
		"immediate without any node":     {Input{ClaimName: "data", AllSegments: true}, nil, nil, "no node has the driver"},
		"a selected node without driver": {Input{Selected: &NodeTopology{Name: "n1"}}, nil, nil, "node n1, which the scheduler selected, has no topology keys"},
		"a selected node without label": {
			Input{Selected: &NodeTopology{Name: "n1", Keys: []string{"zone"}}}, nil, nil, "lacks the label zone"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := Requirement(tt.in)
			checkError(t, err, tt.err)
			if diff := cmp.Diff(topologies(tt.requisite), got.GetRequisite(), protocmp.Transform()); diff != "" {
				t.Errorf("requisite: %s", diff)
			}
			if tt.preferred != nil {
				if diff := cmp.Diff(topologies(tt.preferred), got.GetPreferred(), protocmp.Transform()); diff != "" {
					t.Errorf("preferred: %s", diff)
				}
			}
			if len(got.GetPreferred()) != len(got.GetRequisite()) {
				t.Errorf("%d preferred of %d", len(got.GetPreferred()), len(got.GetRequisite()))
			}
		})
	}
}

func topologies(all []topology.Segment) []*csipb.Topology {
	var list []*csipb.Topology
	for _, s := range all {
		list = append(list, &csipb.Topology{Segments: s})
	}
	return list
}

func TestAllowedTopologiesAreMultipliedSortedAndDistinct(t *testing.T) {
	terms := append(
		allowed(
			corev1.TopologySelectorLabelRequirement{Key: "zone", Values: []string{"b", "a"}},
			corev1.TopologySelectorLabelRequirement{Key: "rack", Values: []string{"1", "2"}},
		),
		allowed(corev1.TopologySelectorLabelRequirement{Key: "zone", Values: []string{"c", "c"}})...)
	want := []topology.Segment{
		{"zone": "c"},
		{"rack": "1", "zone": "a"}, {"rack": "1", "zone": "b"}, {"rack": "2", "zone": "a"}, {"rack": "2", "zone": "b"},
	}
	if diff := cmp.Diff(want, topology.Normalize(ExpandTerms(terms))); diff != "" {
		t.Error(diff)
	}
}

func TestRotationSpreadsAStatefulSet(t *testing.T) {
	const n = 3
	if (rotation("data-web-0", n)+1)%n != rotation("data-web-1", n) {
		t.Error("two pods of a set begin at the same segment")
	}
	if rotation("data-web-1", n) != rotation("logs-web-1", n) {
		t.Error("two claims of one pod begin at different segments")
	}
	if rotation("data-web-0", n) != rotation("data-web-3", n) {
		t.Error("the rotation does not wrap around")
	}
	for _, name := range []string{"data", "data-", "-1", "data-99999999999", "1"} {
		if at := rotation(name, n); at < 0 || at >= n {
			t.Errorf("claim %q begins at %d of %d", name, at, n)
		}
	}
}

// checkError wants an error that contains part, or none if part is empty.
func checkError(t *testing.T, err error, part string) {
	t.Helper()
	if (err != nil) != (part != "") || (err != nil && !strings.Contains(err.Error(), part)) {
		t.Errorf("got error %v, want one that contains %q", err, part)
	}
}
