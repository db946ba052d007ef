package capacity

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/topology"
)

// newNodeFixture is a fixture of one node's provisioner. The cluster has other
// nodes, which it must ignore.
func newNodeFixture(name string, objects ...client.Object) *fixture {
	w := newFixture(slices.Concat(node("n1", "a"), node("n2", "b"), objects)...)
	w.options.Node, w.options.Segment = name, topology.Segment{"host": name}
	w.segments.fixed = w.options.Segment
	return w
}

func TestANodePublishesItsOwnSegmentOnly(t *testing.T) {
	w := newNodeFixture("n1", class("fast"))
	for _, watch := range w.watches() {
		switch watch.object.(type) {
		case *corev1.Node, *storagev1.CSINode:
			t.Errorf("%T is watched by every node", watch.object)
		}
	}
	q := &recordingQueue{pairs: map[pair]bool{}}
	w.sendEvent(t, q, nil, class("fast"))
	if diff := cmp.Diff([]string{"fast host=n1"}, q.sorted()); diff != "" {
		t.Fatal(diff)
	}
	for p := range q.pairs {
		if _, err := w.Reconcile(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{"fast host=n1 100"}, w.published()); diff != "" {
		t.Error(diff)
	}
	if w.lists["*v1.Node"] > 0 {
		t.Error("nodes were read, for which there may be no permission")
	}
}

func TestANodeIgnoresClaimsAndVolumesOfOtherNodes(t *testing.T) {
	at := func(host string) *corev1.PersistentVolume {
		return volume("fast", topology.NodeAffinity(accessible(map[string]string{"host": host})))
	}
	tests := map[string]struct {
		before, after client.Object
		want          []string
	}{
		"a claim that found no capacity on this node":    {claim("n1"), claim(""), []string{"fast host=n1"}},
		"a claim that found no capacity on another node": {claim("n2"), claim(""), nil},
		"a volume that is created on this node":          {nil, at("n1"), []string{"fast host=n1"}},
		"a volume that is created on another node":       {nil, at("n2"), nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w, q := newNodeFixture("n1", class("fast")), &recordingQueue{pairs: map[pair]bool{}}
			w.sendEvent(t, q, tt.before, tt.after)
			if diff := cmp.Diff(tt.want, q.sorted()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestObjectsOfNodesAreDistinct(t *testing.T) {
	s := &state{pair: pair{"fast", "zone=a"}, segment: topology.Segment{"zone": "a"}, response: capacityResponse(1, 0)}
	on := func(node string) *Options {
		o := options()
		o.Node, o.Segment = node, s.segment
		return o
	}
	one, two, all := on("n1").object(s), on("n2").object(s), options().object(s)
	if got := one.Labels[LabelManagedBy]; got != "external-provisioner-n1" {
		t.Errorf("it is managed by %s", got)
	}
	if one.Name == two.Name || one.Name == all.Name {
		t.Errorf("the names are %s, %s and %s", one.Name, two.Name, all.Name)
	}
	if !on("n1").isOurs(one) || on("n1").isOurs(two) || on("n1").isOurs(all) || options().isOurs(one) {
		t.Error("isOurs is true for objects of another provisioner")
	}
}
