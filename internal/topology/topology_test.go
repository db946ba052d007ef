package topology

import (
	"slices"
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/cache"
)

func TestSegmentOf(t *testing.T) {
	labels := map[string]string{"zone": "a", "rack": "1", "other": "x"}
	tests := map[string]struct {
		keys    []string
		want    Segment
		missing string
	}{
		"the labels of a node are its segment":            {[]string{"zone", "rack"}, Segment{"zone": "a", "rack": "1"}, ""},
		"other labels are ignored":                        {[]string{"zone"}, Segment{"zone": "a"}, ""},
		"a node without one of the labels has no segment": {[]string{"zone", "room", "row"}, nil, "room"},
		"without keys the segment is the whole cluster":   {nil, Segment{}, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, missing := SegmentOf(labels, tt.keys)
			if diff := cmp.Diff(tt.want, got); diff != "" || missing != tt.missing {
				t.Errorf("missing %q, want %q; %s", missing, tt.missing, diff)
			}
		})
	}
}

func TestKeys(t *testing.T) {
	node := &storagev1.CSINode{Spec: storagev1.CSINodeSpec{Drivers: []storagev1.CSINodeDriver{
		{Name: "one", TopologyKeys: []string{"zone"}}, {Name: "two"},
	}}}
	tests := map[string]struct {
		driver string
		keys   []string
		there  bool
	}{
		"a driver with topology":          {"one", []string{"zone"}, true},
		"a driver without topology":       {"two", nil, true},
		"a driver that is not registered": {"three", nil, false},
		"a driver whose name is a prefix": {"on", nil, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			keys, there := Keys(node, tt.driver)
			if diff := cmp.Diff(tt.keys, keys); diff != "" || there != tt.there {
				t.Errorf("there: %t, %s", there, diff)
			}
		})
	}
}

func TestContains(t *testing.T) {
	tests := map[string]struct {
		segment Segment
		want    bool
	}{
		"all labels are there":                {Segment{"zone": "a", "rack": "1"}, true},
		"one has another value":               {Segment{"zone": "a", "rack": "2"}, false},
		"one is missing":                      {Segment{"zone": "a", "room": ""}, false},
		"the whole cluster contains any node": {Segment{}, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := tt.segment.Contains(map[string]string{"zone": "a", "rack": "1"}); got != tt.want {
				t.Errorf("got %t", got)
			}
		})
	}
}

func TestStringIsOneToOne(t *testing.T) {
	for segment, want := range map[*Segment]string{
		{}:                         "",
		{"zone": "a"}:              "zone=a",
		{"zone": ""}:               "zone=",
		{"zone": "a", "rack": "1"}: "rack=1,zone=a",
		{"rack": "1", "zone": "a"}: "rack=1,zone=a",
	} {
		if got := segment.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// The order of segments is part of requests that other programs repeat: it compares
// keys and values, not the strings of segments.
func TestNormalize(t *testing.T) {
	sorted := []Segment{
		{},
		{"a": "x"}, {"a": "x-1"}, {"a": "x.1"}, {"a-b": "x"},
		{"rack": "1", "zone": "a"}, {"rack": "1", "zone": "b"}, {"rack": "2", "zone": "a"},
	}
	mixed := slices.Concat(sorted, sorted)
	slices.Reverse(mixed)
	if diff := cmp.Diff(sorted, Normalize(mixed)); diff != "" {
		t.Error(diff)
	}
}

func TestNodeAffinity(t *testing.T) {
	in := func(key, value string) corev1.NodeSelectorRequirement {
		return corev1.NodeSelectorRequirement{Key: key, Operator: corev1.NodeSelectorOpIn, Values: []string{value}}
	}
	tests := map[string]struct {
		accessible []*csipb.Topology
		want       []corev1.NodeSelectorTerm
	}{
		"a volume without topology":       {nil, nil},
		"a volume with an empty topology": {[]*csipb.Topology{{}}, nil},
		"all keys of a segment are required, in order": {
			[]*csipb.Topology{{Segments: map[string]string{"zone": "a", "rack": "1"}}},
			[]corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{in("rack", "1"), in("zone", "a")}}}},
		"several segments are alternatives": {
			[]*csipb.Topology{{Segments: map[string]string{"zone": "b"}}, {Segments: map[string]string{"zone": "a"}}},
			[]corev1.NodeSelectorTerm{
				{MatchExpressions: []corev1.NodeSelectorRequirement{in("zone", "b")}},
				{MatchExpressions: []corev1.NodeSelectorRequirement{in("zone", "a")}},
			}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var got []corev1.NodeSelectorTerm
			if affinity := NodeAffinity(tt.accessible); affinity != nil {
				got = affinity.Required.NodeSelectorTerms
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCanReach(t *testing.T) {
	term := func(key string, operator corev1.NodeSelectorOperator, values ...string) corev1.NodeSelectorTerm {
		return corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: key, Operator: operator, Values: values}}}
	}
	const in = corev1.NodeSelectorOpIn
	tests := map[string]struct {
		terms []corev1.NodeSelectorTerm
		want  bool
	}{
		"a volume in this segment":                 {[]corev1.NodeSelectorTerm{term("zone", in, "a")}, true},
		"a volume in another segment":              {[]corev1.NodeSelectorTerm{term("zone", in, "b")}, false},
		"a volume in both":                         {[]corev1.NodeSelectorTerm{term("zone", in, "b"), term("zone", in, "a")}, true},
		"a volume in both, in one term":            {[]corev1.NodeSelectorTerm{term("zone", in, "b", "a")}, true},
		"a volume in a part of the segment":        {[]corev1.NodeSelectorTerm{term("host", in, "n1")}, true},
		"a volume anywhere but in another segment": {[]corev1.NodeSelectorTerm{term("zone", corev1.NodeSelectorOpNotIn, "b")}, true},
		"a volume anywhere but here":               {[]corev1.NodeSelectorTerm{term("zone", corev1.NodeSelectorOpNotIn, "a")}, false},
		"a volume on nodes without a zone":         {[]corev1.NodeSelectorTerm{term("zone", corev1.NodeSelectorOpDoesNotExist)}, false},
		"a volume without terms":                   {[]corev1.NodeSelectorTerm{}, false},
		"a volume in a part of another segment":    {[]corev1.NodeSelectorTerm{{MatchExpressions: slices.Concat(term("host", in, "n1").MatchExpressions, term("zone", in, "b").MatchExpressions)}}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			affinity := &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: tt.terms}}
			if got := (Segment{"zone": "a"}).CanReach(affinity); got != tt.want {
				t.Errorf("got %t", got)
			}
		})
	}
	if !(Segment{"zone": "a"}).CanReach(nil) {
		t.Error("a volume without affinity cannot be reached")
	}
}

func TestNodesInTheCacheAreSmall(t *testing.T) {
	var o cache.Options
	CacheOptions(&o)
	CacheOptions(&o)
	if len(o.ByObject) != 1 {
		t.Fatalf("after two calls there are %d entries for nodes, want one", len(o.ByObject))
	}
	for _, by := range o.ByObject {
		node := &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{"zone": "a"}, ManagedFields: []metav1.ManagedFieldsEntry{{}}},
			Spec:       corev1.NodeSpec{ProviderID: "x"},
			Status:     corev1.NodeStatus{Images: []corev1.ContainerImage{{}}},
		}
		got, err := by.Transform(node)
		if err != nil {
			t.Fatal(err)
		}
		want := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{"zone": "a"}}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
}
