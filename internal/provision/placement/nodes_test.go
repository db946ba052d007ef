package placement

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
)

const driver = "csitest.holdfast.io"

// fleet is a cached reader of nodes that copies what it returns, as the manager's does.
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
		Drivers: []storagev1.CSINodeDriver{{Name: "other.example.com"}, {Name: driver, NodeID: name, TopologyKeys: []string{"zone"}}},
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

func TestNodesAreListedOnceForAllClaims(t *testing.T) {
	f := newFleet(6)
	c := NewCache(f, driver)
	zones := func() int {
		nodes, err := c.Nodes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return len(nodes.Segments(nil))
	}
	for range 3 {
		if n := zones(); n != 3 {
			t.Errorf("%d zones", n)
		}
	}
	if f.lists != 2 {
		t.Errorf("nodes and CSINodes were listed %d times", f.lists)
	}
	f.add("new", "zone-new")
	if n, err := c.Node(t.Context(), "new"); err != nil || n == nil || n.Labels["zone"] != "zone-new" {
		t.Errorf("the selected node, of which no event has come yet, is %v, %v", n, err)
	}
	atEvent := 0
	c.InvalidateBefore(predicate.NewPredicateFuncs(func(client.Object) bool {
		atEvent = zones()
		return true
	})).Create(event.CreateEvent{Object: f.nodes["new"]})
	if atEvent != 4 {
		t.Errorf("a claim that a new node wakes sees %d zones", atEvent)
	}
}

// A driver may get topology by an upgrade while this process runs. Nodes are not watched then.
func TestLiveNodesAreNotKept(t *testing.T) {
	f := newFleet(3)
	c := NewLive(f, driver)
	for _, want := range []int{3, 4} {
		nodes, err := c.Nodes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if n := len(nodes.Segments(nil)); n != want {
			t.Errorf("%d zones, want %d", n, want)
		}
		f.add("new", "zone-new")
	}
	if n, err := c.Node(t.Context(), "new"); err != nil || n == nil {
		t.Errorf("got %v, %v", n, err)
	}
}

func TestIsMoved(t *testing.T) {
	f := newFleet(1)
	c := NewCache(f, driver)
	for name, tt := range map[string]struct {
		node   func(*corev1.Node)
		driver func(*storagev1.CSINode)
		want   bool
	}{
		"an update without a change of labels":    {func(n *corev1.Node) { n.ResourceVersion = "2" }, nil, false},
		"a changed label of the node":             {func(n *corev1.Node) { n.Labels["zone"] = "z" }, nil, true},
		"changed topology keys of the driver":     {nil, func(d *storagev1.CSINode) { d.Spec.Drivers[1].TopologyKeys = []string{"rack"} }, true},
		"the driver is unregistered":              {nil, func(d *storagev1.CSINode) { d.Spec.Drivers = nil }, true},
		"changed topology keys of another driver": {nil, func(d *storagev1.CSINode) { d.Spec.Drivers[0].TopologyKeys = []string{"rack"} }, false},
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
			if got := c.isMoved(before, after); got != tt.want {
				t.Errorf("got %t", got)
			}
		})
	}
}

func BenchmarkRequirementAmong1000Nodes(b *testing.B) {
	c := NewCache(newFleet(1000), driver)
	b.ReportAllocs()
	for b.Loop() {
		nodes, err := c.Nodes(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		selected, err := c.Node(b.Context(), "n0500")
		if err != nil {
			b.Fatal(err)
		}
		if _, err := Requirement(Input{ClaimName: "data", Selected: selected, AllSegments: true, Nodes: nodes}); err != nil {
			b.Fatal(err)
		}
	}
}
