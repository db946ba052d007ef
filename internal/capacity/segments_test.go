package capacity

import (
	"maps"
	"slices"
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/go-cmp/cmp"
	storagev1 "k8s.io/api/storage/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

func accessible(all ...map[string]string) []*csipb.Topology {
	var list []*csipb.Topology
	for _, s := range all {
		list = append(list, &csipb.Topology{Segments: s})
	}
	return list
}

func TestSegments(t *testing.T) {
	keys := func(o []client.Object, keys ...string) []client.Object {
		o[1].(*storagev1.CSINode).Spec.Drivers[1].TopologyKeys = keys
		return o
	}
	without := func(o []client.Object, label string) []client.Object {
		delete(o[0].GetLabels(), label)
		return o
	}
	tests := map[string]struct {
		nodes [][]client.Object
		want  []string
	}{
		"nodes with the same values are one segment":  {[][]client.Object{node("n1", "a"), node("n2", "a"), node("n3", "b")}, []string{"zone=a", "zone=b"}},
		"several keys are one segment":                {[][]client.Object{keys(node("n1", "a"), "zone", "host")}, []string{"host=n1,zone=a"}},
		"nodes may have different keys":               {[][]client.Object{keys(node("n1", "a"), "host"), node("n2", "a")}, []string{"host=n1", "zone=a"}},
		"a node without one of the labels is ignored": {[][]client.Object{without(node("n1", "a"), "zone"), node("n2", "b")}, []string{"zone=b"}},
		"a node without keys is ignored":              {[][]client.Object{keys(node("n1", "a"))}, nil},
		"a node without CSINode is ignored":           {[][]client.Object{node("n1", "a")[:1]}, nil},
		"a CSINode without node is ignored":           {[][]client.Object{node("n1", "a")[1:]}, nil},
		"keys of other drivers are ignored":           {[][]client.Object{keys(node("n1", "a"), "zone")}, []string{"zone=a"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			segments, err := newFixture(slices.Concat(tt.nodes...)...).segments.get(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, slices.Sorted(maps.Keys(segments))); diff != "" {
				t.Error(diff)
			}
			for text, segment := range segments {
				if segment.String() != text {
					t.Errorf("the key of %v is %s", segment, text)
				}
			}
		})
	}
}

func TestSegmentsAreListedOnceUntilTheyChange(t *testing.T) {
	w := newFixture(slices.Concat(node("n1", "a"), node("n2", "b"))...)
	for range 100 {
		if _, err := w.segments.get(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := w.lists["*v1.Node"]; n != 1 {
		t.Errorf("nodes were listed %d times", n)
	}
	for _, o := range node("n2", "c") {
		w.put(o)
	}
	changed, err := w.segments.refresh(t.Context())
	if diff := cmp.Diff([]string{"zone=b", "zone=c"}, changed); err != nil || diff != "" {
		t.Errorf("%v, %s", err, diff)
	}
}
