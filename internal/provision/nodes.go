package provision

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/holdfast-io/holdfast/internal/topology"
)

// A place is a node as the driver's topology sees it.
type place struct {
	name   string
	labels map[string]string
	keys   []string // that the driver uses on this node
}

// places are all that have the driver with topology keys. They do not change.
type places struct {
	byName []place

	mu    sync.Mutex
	found map[string][]topology.Segment // by keys
}

func newPlaces(all ...place) *places {
	all = slices.DeleteFunc(all, func(p place) bool { return len(p.keys) == 0 })
	slices.SortFunc(all, func(a, b place) int { return strings.Compare(a.name, b.name) })
	return &places{byName: all, found: map[string][]topology.Segment{}}
}

// anyKeys are the driver's topology keys on the first node, by name, that has any.
func (p *places) anyKeys() []string {
	if p == nil || len(p.byName) == 0 {
		return nil
	}
	return p.byName[0].keys
}

// segments are the distinct ones of all nodes that have a label for every key.
// They are not to be changed: whoever asks for the same keys gets the same.
func (p *places) segments(keys []string) []topology.Segment {
	if p == nil || len(keys) == 0 {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	name := strings.Join(keys, ",")
	if known, ok := p.found[name]; ok {
		return known
	}
	distinct := map[string]topology.Segment{}
	for i := range p.byName {
		if s, missing := topology.Of(p.byName[i].labels, keys); missing == "" {
			distinct[s.String()] = s
		}
	}
	p.found[name] = topology.Normalize(slices.Collect(maps.Values(distinct)))
	return p.found[name]
}

// An atlas knows the places of the cluster. It says what the cache says and is
// kept between claims only because each would look at every node.
type atlas struct {
	from   client.Reader // the cache
	driver string

	mu    sync.Mutex
	known *places // nil if nobody has looked since a node changed
}

// places are those of now.
func (a *atlas) places(ctx context.Context) (*places, error) {
	a.mu.Lock() // Also while looking: what changes meanwhile is forgotten after.
	defer a.mu.Unlock()
	if a.known != nil {
		return a.known, nil
	}
	var err error
	a.known, err = a.look(ctx)
	return a.known, err
}

// look goes through all nodes, once.
func (a *atlas) look(ctx context.Context) (*places, error) {
	// Nothing of what is listed is changed, so it need not be copied.
	nodes, drivers := &corev1.NodeList{}, &storagev1.CSINodeList{}
	if err := a.from.List(ctx, nodes, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("reading nodes: %w", err)
	}
	if err := a.from.List(ctx, drivers, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("reading CSINodes: %w", err)
	}
	keys := make(map[string][]string, len(drivers.Items))
	for i := range drivers.Items {
		keys[drivers.Items[i].Name], _ = topology.Keys(&drivers.Items[i], a.driver)
	}
	var all []place
	for i := range nodes.Items {
		name := nodes.Items[i].Name
		all = append(all, place{name: name, labels: nodes.Items[i].Labels, keys: keys[name]})
	}
	return newPlaces(all...), nil
}

// forget has the next claim look again.
func (a *atlas) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.known = nil
}

// before has the atlas forget what it knows when a node comes, goes or moves,
// or the driver on one does: before a predicate is asked, so before any claim is
// woken up. Nodes report far more often than that.
func (a *atlas) before(p predicate.Predicate) predicate.Predicate {
	return predicate.Funcs{
		CreateFunc: func(e event.CreateEvent) bool {
			a.forget()
			return p.Create(e)
		},
		UpdateFunc: func(e event.UpdateEvent) bool {
			if a.moved(e.ObjectOld, e.ObjectNew) {
				a.forget()
			}
			return p.Update(e)
		},
		DeleteFunc: func(e event.DeleteEvent) bool {
			a.forget()
			return p.Delete(e)
		},
	}
}

// moved tells whether a change of a Node or CSINode is about a place.
func (a *atlas) moved(before, after client.Object) bool {
	switch after := after.(type) {
	case *corev1.Node:
		was, ok := before.(*corev1.Node)
		return !ok || !maps.Equal(was.Labels, after.Labels)
	case *storagev1.CSINode:
		was, ok := before.(*storagev1.CSINode)
		if !ok {
			return true
		}
		had, _ := topology.Keys(was, a.driver)
		has, _ := topology.Keys(after, a.driver)
		return !slices.Equal(had, has)
	}
	return true
}
