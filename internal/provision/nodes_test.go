package provision

import (
	"context"
	"errors"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/internal/kube"
)

// fleet is a cache of nodes that copies what it hands out, as the manager's does.
type fleet struct {
	client.Client
	nodes   map[string]*corev1.Node
	drivers []*storagev1.CSINode
	lists   int
}

func newFleet(n int) *fleet {
	f := &fleet{nodes: map[string]*corev1.Node{}}
	for i := range n {
		f.add(fmt.Sprintf("n%04d", i), fmt.Sprintf("zone-%d", i%3))
	}
	return f
}

func (f *fleet) add(name, zone string) {
	f.nodes[name] = &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
		"zone": zone, "kubernetes.io/hostname": name, "kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux",
	}}}
	f.drivers = append(f.drivers, &storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: storagev1.CSINodeSpec{
		Drivers: []storagev1.CSINodeDriver{{Name: "other.example.com"}, {Name: "csitest.holdfast.io", NodeID: name, TopologyKeys: []string{"zone"}}},
	}})
}

func (f *fleet) Get(_ context.Context, key client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	switch into := into.(type) {
	case *corev1.Node:
		if node, ok := f.nodes[key.Name]; ok {
			node.DeepCopyInto(into)
			return nil
		}
	case *storagev1.CSINode:
		for _, driver := range f.drivers {
			if driver.Name == key.Name {
				driver.DeepCopyInto(into)
				return nil
			}
		}
	}
	return apierrors.NewNotFound(schema.GroupResource{}, key.Name)
}

func (f *fleet) List(_ context.Context, into client.ObjectList, options ...client.ListOption) error {
	f.lists++
	var o client.ListOptions
	o.ApplyOptions(options)
	copies := o.UnsafeDisableDeepCopy == nil || !*o.UnsafeDisableDeepCopy
	switch into := into.(type) {
	case *corev1.NodeList:
		for _, node := range f.nodes {
			if copies {
				node = node.DeepCopy()
			}
			into.Items = append(into.Items, *node)
		}
	case *storagev1.CSINodeList:
		for _, driver := range f.drivers {
			if copies {
				driver = driver.DeepCopy()
			}
			into.Items = append(into.Items, *driver)
		}
	default:
		return errors.New("not a list of nodes")
	}
	return nil
}

func TestNodesAreLookedAtOnceForAllClaims(t *testing.T) {
	f := newFleet(6)
	r := newNodeReconciler(f)
	info := driverInfo(t, csitest.Options{Segments: []map[string]string{{"zone": "zone-0"}}})
	look := func(selected string) state {
		s := state{claim: claim(), class: class(), info: info}
		s.claim.Annotations[kube.AnnSelectedNode] = selected
		if err := r.observeNodes(t.Context(), &s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	zones := func(s state) int { return len(s.nodes.Segments(s.nodes.AnyKeys())) }
	for range 3 {
		if s := look(""); zones(s) != 3 || s.selected != nil {
			t.Errorf("%d zones, selected node %v", zones(s), s.selected)
		}
	}
	if f.lists != 2 {
		t.Errorf("nodes and CSINodes were listed %d times", f.lists)
	}
	f.add("new", "zone-new")
	if s := look("new"); s.selected == nil || s.selected.Labels["zone"] != "zone-new" {
		t.Errorf("the selected node, of which we have not been told yet, is %v", s.selected)
	}
	woken := 0
	r.nodes.InvalidateBefore(predicate.NewPredicateFuncs(func(client.Object) bool {
		woken = zones(look(""))
		return true
	})).Create(event.CreateEvent{Object: f.nodes["new"]})
	if woken != 4 {
		t.Errorf("who is woken up by a node that came sees %d zones", woken)
	}
}

func TestWhatMovesANode(t *testing.T) {
	f := newFleet(1)
	a := &Cache{driver: "csitest.holdfast.io"}
	for name, tt := range map[string]struct {
		node   func(*corev1.Node)
		driver func(*storagev1.CSINode)
		want   bool
	}{
		"a node that reports is where it was":        {func(n *corev1.Node) { n.ResourceVersion = "2" }, nil, false},
		"a node with another label may be elsewhere": {func(n *corev1.Node) { n.Labels["zone"] = "z" }, nil, true},
		"a driver with other keys is elsewhere":      {nil, func(d *storagev1.CSINode) { d.Spec.Drivers[1].TopologyKeys = []string{"rack"} }, true},
		"a driver that goes is nowhere":              {nil, func(d *storagev1.CSINode) { d.Spec.Drivers = nil }, true},
		"another driver does not matter":             {nil, func(d *storagev1.CSINode) { d.Spec.Drivers[0].TopologyKeys = []string{"rack"} }, false},
	} {
		t.Run(name, func(t *testing.T) {
			var before, after client.Object
			if tt.node != nil {
				node := f.nodes["n0000"].DeepCopy()
				tt.node(node)
				before, after = f.nodes["n0000"], node
			} else {
				driver := f.drivers[0].DeepCopy()
				tt.driver(driver)
				before, after = f.drivers[0], driver
			}
			if got := a.isMoved(before, after); got != tt.want {
				t.Errorf("got %t", got)
			}
		})
	}
}

func BenchmarkPlaceOfAVolumeAmong1000Nodes(b *testing.B) {
	r := newNodeReconciler(newFleet(1000))
	info := driverInfo(b, csitest.Options{Segments: []map[string]string{{"zone": "zone-0"}}})
	b.ReportAllocs()
	for b.Loop() {
		s := state{claim: claim(), class: class(), info: info}
		waitForFirstConsumer(&s)
		s.claim.Annotations[kube.AnnSelectedNode] = "n0500"
		if err := r.observeNodes(b.Context(), &s); err != nil {
			b.Fatal(err)
		}
		if _, err := Requirement(s.placement(r.options)); err != nil {
			b.Fatal(err)
		}
	}
}

func newNodeReconciler(f *fleet) *Reconciler {
	return &Reconciler{client: f, options: options(), nodes: &Cache{client: f, driver: options().Driver}}
}
