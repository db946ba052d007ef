package capacity

import (
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/topology"
)

// recordingQueue is a queue that records what was added, each pair once.
type recordingQueue struct {
	queue
	pairs map[pair]bool
}

func (w *recordingQueue) Add(p pair) { w.pairs[p] = true }

func (w *recordingQueue) sorted() []string {
	var all []string
	for p := range w.pairs {
		all = append(all, p.String())
	}
	slices.Sort(all)
	return all
}

// changed is a changed copy.
func changed[T client.Object](o T, change func(T)) T {
	o, _ = o.DeepCopyObject().(T)
	change(o)
	return o
}

func volume(class string, affinity *corev1.VolumeNodeAffinity) *corev1.PersistentVolume {
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "pv"},
		Spec: corev1.PersistentVolumeSpec{
			StorageClassName: class, NodeAffinity: affinity,
			Capacity:               corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")},
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: driverName}},
		},
	}
}

func claim(node string) *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: "data", Annotations: map[string]string{kube.AnnSelectedNode: node}},
		Spec:       corev1.PersistentVolumeClaimSpec{StorageClassName: ptr.To("fast")},
	}
}

// Each row is a change in a cluster of two nodes in zone a and one in zone b, with
// the classes fast and slow.
func TestWatches(t *testing.T) {
	n1, n2, n3 := node("n1", "a"), node("n2", "a"), node("n3", "b")
	labelled := func(o client.Object, key, value string) client.Object {
		return changed(o, func(o client.Object) {
			labels := maps.Clone(o.GetLabels())
			labels[key] = value
			o.SetLabels(labels)
		})
	}
	keyed := func(o client.Object, keys ...string) client.Object {
		node, _ := o.(*storagev1.CSINode)
		return changed(node, func(n *storagev1.CSINode) { n.Spec.Drivers[1].TopologyKeys = keys })
	}
	inA := topology.NodeAffinity(accessible(map[string]string{"zone": "a"}))
	pv, free := volume("fast", inA), volume("fast", nil)
	foreign := changed(pv, func(v *corev1.PersistentVolume) { v.Spec.CSI.Driver = "other" })
	all := []string{"fast zone=a", "fast zone=b", "slow zone=a", "slow zone=b"}
	tests := map[string]struct {
		before, after client.Object
		want          []string
	}{
		"a class that is created":                     {nil, class("fast"), []string{"fast zone=a", "fast zone=b"}},
		"a class that is deleted":                     {class("fast"), nil, []string{"fast zone=a", "fast zone=b"}},
		"a class that is updated":                     {class("fast"), changed(class("fast"), func(c *storagev1.StorageClass) { c.Labels = map[string]string{"a": "b"} }), nil},
		"a class of another provisioner":              {nil, changed(class("fast"), func(c *storagev1.StorageClass) { c.Provisioner = "other" }), nil},
		"the last node of a zone is deleted":          {n3[0], nil, []string{"fast zone=b", "slow zone=b"}},
		"its CSINode is deleted":                      {n3[1], nil, []string{"fast zone=b", "slow zone=b"}},
		"the driver is removed from its CSINode":      {n3[1], changed(n3[1].(*storagev1.CSINode), func(n *storagev1.CSINode) { n.Spec.Drivers = n.Spec.Drivers[:1] }), []string{"fast zone=b", "slow zone=b"}},
		"one of several nodes in a zone is deleted":   {n2[0], nil, nil},
		"a node that moves to a new zone":             {n2[0], labelled(n2[0], "zone", "c"), []string{"fast zone=c", "slow zone=c"}},
		"the last node of a zone moves to a new zone": {n3[0], labelled(n3[0], "zone", "c"), []string{"fast zone=b", "fast zone=c", "slow zone=b", "slow zone=c"}},
		"a node that loses its labels":                {n3[0], changed(n3[0], func(o client.Object) { o.SetLabels(nil) }), []string{"fast zone=b", "slow zone=b"}},
		"a label that is no topology key":             {n3[0], labelled(n3[0], "host", "other"), nil},
		"an additional topology key":                  {n3[1], keyed(n3[1], "zone", "host"), []string{"fast host=n3,zone=b", "fast zone=b", "slow host=n3,zone=b", "slow zone=b"}},
		"a node that loses its topology keys":         {n3[1], keyed(n3[1]), []string{"fast zone=b", "slow zone=b"}},
		"a volume that is created":                    {nil, pv, []string{"fast zone=a", "slow zone=a"}},
		"a volume that is deleted":                    {pv, nil, []string{"fast zone=a", "slow zone=a"}},
		"a volume that is expanded": {pv, changed(pv, func(v *corev1.PersistentVolume) {
			v.Spec.Capacity = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("2Gi")}
		}), []string{"fast zone=a", "slow zone=a"}},
		"a volume that is bound":                                {pv, changed(pv, func(v *corev1.PersistentVolume) { v.Status.Phase = corev1.VolumeBound }), nil},
		"a volume without affinity":                             {nil, free, []string{"fast zone=a", "fast zone=b"}},
		"a volume of another driver is created":                 {nil, foreign, nil},
		"a volume of another driver is expanded":                {foreign, changed(foreign, func(v *corev1.PersistentVolume) { v.Spec.Capacity = nil }), nil},
		"a volume of another driver is deleted":                 {foreign, nil, nil},
		"a claim that found no capacity":                        {claim("n3"), claim(""), []string{"fast zone=b"}},
		"a claim that gets a selected node":                     {claim(""), claim("n3"), nil},
		"a claim that found no capacity on a node that is gone": {claim("n9"), claim(""), nil},
		"an object that is created as expected":                 {nil, object("x", "fast", "a", 1), nil},
		"an object that is updated":                             {object("x", "fast", "a", 1), object("x", "fast", "a", 2), nil},
		"an object that is deleted":                             {object("x", "fast", "a", 1), nil, []string{"fast zone=a"}},
		"an object of a missing zone":                           {nil, object("x", "fast", "c", 1), []string{"fast zone=c"}},
		"an object of a missing class":                          {nil, object("x", "other", "a", 1), []string{"other zone=a"}},
		"a second object of the same pair":                      {nil, object("y", "slow", "b", 1), []string{"slow zone=b"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newFixture(slices.Concat(n1, n2, n3, []client.Object{class("fast"), class("slow"), object("there", "slow", "b", 1)})...)
			if segments, err := w.segments.get(t.Context()); err != nil || len(segments) != 2 {
				t.Fatalf("the segments are %v, %v", segments, err)
			}
			q := &recordingQueue{pairs: map[pair]bool{}}
			w.change(t, q, tt.before, tt.after)
			if diff := cmp.Diff(tt.want, q.sorted()); diff != "" {
				t.Error(diff)
			}
		})
	}
	t.Run("a label that is no topology key lists no nodes", func(t *testing.T) {
		w := newFixture(slices.Concat(n1, n3, []client.Object{class("fast")})...)
		w.change(t, &recordingQueue{pairs: map[pair]bool{}}, n3[0], labelled(n3[0], "host", "other"))
		if w.lists["*v1.Node"] > 0 {
			t.Error("nodes were listed")
		}
	})
	t.Run("a new node adds its zone when its driver is registered", func(t *testing.T) {
		w, q := newFixture(slices.Concat(n1, n3, []client.Object{class("fast"), class("slow")})...), &recordingQueue{pairs: map[pair]bool{}}
		if _, err := w.segments.get(t.Context()); err != nil {
			t.Fatal(err)
		}
		n4 := node("n4", "d")
		w.change(t, q, nil, n4[0])
		if len(q.pairs) > 0 {
			t.Errorf("without the driver it enqueued %v", q.sorted())
		}
		w.change(t, q, nil, n4[1])
		if diff := cmp.Diff([]string{"fast zone=d", "slow zone=d"}, q.sorted()); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("a node that is gone from the cache with its CSINode before the events", func(t *testing.T) {
		w, q := newFixture(slices.Concat(n1, n3, []client.Object{class("fast"), class("slow")})...), &recordingQueue{pairs: map[pair]bool{}}
		if _, err := w.segments.get(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.remove(n3[0])
		w.remove(n3[1])
		w.sendEvent(t, q, n3[0], nil)
		w.sendEvent(t, q, n3[1], nil)
		if diff := cmp.Diff([]string{"fast zone=b", "slow zone=b"}, q.sorted()); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("with the flag classes with immediate binding have pairs", func(t *testing.T) {
		w, q := newFixture(slices.Concat(n1, n3, []client.Object{class("fast")})...), &recordingQueue{pairs: map[pair]bool{}}
		w.options.Immediate = true
		immediate := changed(class("slow"), func(c *storagev1.StorageClass) { c.VolumeBindingMode = nil })
		w.change(t, q, nil, immediate)
		w.change(t, q, nil, class("fast"))
		if diff := cmp.Diff(all, q.sorted()); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("a driver without topology has one segment", func(t *testing.T) {
		w, q := newFixture(slices.Concat(n1, n3, []client.Object{class("fast"), class("slow")})...), &recordingQueue{pairs: map[pair]bool{}}
		w.segments.fixed = topology.Segment{}
		w.change(t, q, nil, class("fast"))
		w.change(t, q, n3[0], nil)
		w.change(t, q, nil, volume("slow", nil))
		if diff := cmp.Diff([]string{"fast ", "slow "}, q.sorted()); diff != "" {
			t.Error(diff)
		}
		for _, watch := range w.watches() {
			switch watch.object.(type) {
			case *corev1.Node, *storagev1.CSINode:
				t.Errorf("%T is watched, for which there may be no permission", watch.object)
			}
		}
		if w.lists["*v1.Node"] > 0 {
			t.Error("nodes were read, for which there may be no permission")
		}
	})
}

// A bound claim is in the cache without its annotations.
func TestABoundClaimEnqueuesNothing(t *testing.T) {
	update := func(change func(*corev1.PersistentVolumeClaim)) bool {
		before := claim("n1")
		return selectedNodeRemoved().Update(event.UpdateEvent{ObjectOld: before, ObjectNew: changed(before, change)})
	}
	if !update(func(c *corev1.PersistentVolumeClaim) { c.Annotations = nil }) {
		t.Error("a claim that waits for another node enqueues nothing")
	}
	if update(func(c *corev1.PersistentVolumeClaim) { c.Annotations, c.Spec.VolumeName = nil, "pv" }) {
		t.Error("a bound claim enqueues the pair of its last node")
	}
}
