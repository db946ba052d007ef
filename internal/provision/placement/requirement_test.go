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

// Each row of the table of [Requirement], which is that of csi-provisioner but for keys that
// differ.
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

func TestRequirementWithDifferentKeys(t *testing.T) {
	racked := func(name, zone, rack string) NodeTopology {
		return NodeTopology{Name: name, Labels: map[string]string{"zone": zone, "rack": rack, "region": "eu"}, Keys: []string{"zone", "rack"}}
	}
	rack := func(zone, rack string) topology.Segment { return topology.Segment{"zone": zone, "rack": rack} }
	withKeys := func(n NodeTopology, keys ...string) NodeTopology { n.Keys = keys; return n }
	in := func(key string, values ...string) []corev1.TopologySelectorTerm {
		return allowed(corev1.TopologySelectorLabelRequirement{Key: key, Values: values})
	}
	racks := NewNodes(racked("n1", "a", "1"), racked("n2", "a", "2"), racked("n3", "b", "1"), racked("n4", "c", "1"))
	upgraded := NewNodes(inZone("n1", "a"), racked("n2", "a", "2"), racked("n3", "b", "1"), withKeys(racked("n4", "c", "1"), "region"))
	on := func(n NodeTopology) *NodeTopology { return &n }
	tests := map[string]struct {
		in                   Input
		requisite, preferred []topology.Segment
	}{
		"each node counts with its own keys": {
			Input{AllSegments: true, Nodes: upgraded}, []topology.Segment{{"region": "eu"}, {"zone": "a"}, rack("b", "1"), rack("a", "2")}, nil},
		"whichever keys the selected one has": {
			Input{Selected: on(inZone("n1", "a")), Nodes: upgraded},
			[]topology.Segment{{"region": "eu"}, {"zone": "a"}, rack("b", "1"), rack("a", "2")},
			[]topology.Segment{{"zone": "a"}, rack("b", "1"), rack("a", "2"), {"region": "eu"}}},
		"its own segment comes first, not a larger one": {
			Input{Selected: on(racked("n2", "a", "2")), Nodes: upgraded},
			[]topology.Segment{{"region": "eu"}, {"zone": "a"}, rack("b", "1"), rack("a", "2")},
			[]topology.Segment{rack("a", "2"), {"region": "eu"}, {"zone": "a"}, rack("b", "1")}},
		"allowedTopologies with fewer keys restrict the segments": {
			Input{Selected: on(racked("n2", "a", "2")), Nodes: racks, Allowed: in("zone", "a", "b")},
			[]topology.Segment{rack("a", "1"), rack("b", "1"), rack("a", "2")}, []topology.Segment{rack("a", "2"), rack("a", "1"), rack("b", "1")}},
		"those of a class that binds immediately too": {
			Input{Nodes: racks, Allowed: in("zone", "a")}, []topology.Segment{rack("a", "1"), rack("a", "2")}, nil},
		"allowedTopologies with another label": {
			Input{Nodes: racks, Allowed: in("region", "eu")}, []topology.Segment{rack("a", "1"), rack("b", "1"), rack("c", "1"), rack("a", "2")}, nil},
		"a zone without nodes is left out": {
			Input{Nodes: racks, Allowed: in("zone", "a", "z")}, []topology.Segment{rack("a", "1"), rack("a", "2")}, nil},
		"zones without any nodes yet are sent as they are": {Input{Nodes: racks, Allowed: in("zone", "y", "z")}, zone("y", "z"), nil},
		"a strict claim gets the whole segment of its node": {
			Input{Selected: on(racked("n2", "a", "2")), Strict: true, Nodes: racks, Allowed: in("zone", "a")}, []topology.Segment{rack("a", "2")}, []topology.Segment{rack("a", "2")}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tt.in.ClaimName = "data"
			got, err := Requirement(tt.in)
			checkError(t, err, "")
			if diff := cmp.Diff(topologies(tt.requisite), got.GetRequisite(), protocmp.Transform()); diff != "" {
				t.Errorf("requisite: %s", diff)
			}
			if tt.preferred != nil {
				if diff := cmp.Diff(topologies(tt.preferred), got.GetPreferred(), protocmp.Transform()); diff != "" {
					t.Errorf("preferred: %s", diff)
				}
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
