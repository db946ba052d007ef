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

// A NodeTopology is a node as the driver's topology sees it.
type NodeTopology struct {
	Name   string
	Labels map[string]string
	Keys   []string // that the driver uses on this node
}

// Nodes are all that have the driver with topology keys. They do not change.
type Nodes struct {
	byName []NodeTopology

	mu       sync.Mutex
	segments map[string][]topology.Segment // by keys
}

func NewNodes(all ...NodeTopology) *Nodes {
	all = slices.DeleteFunc(all, func(p NodeTopology) bool { return len(p.Keys) == 0 })
	slices.SortFunc(all, func(a, b NodeTopology) int { return strings.Compare(a.Name, b.Name) })
	return &Nodes{byName: all, segments: map[string][]topology.Segment{}}
}

// AnyKeys are the driver's topology keys on the first node, by name, that has any.
func (p *Nodes) AnyKeys() []string {
	if p == nil || len(p.byName) == 0 {
		return nil
	}
	return p.byName[0].Keys
}

// Segments are the distinct ones of all nodes that have a label for every key.
// They are not to be changed: whoever asks for the same keys gets the same.
func (p *Nodes) Segments(keys []string) []topology.Segment {
	if p == nil || len(keys) == 0 {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	name := strings.Join(keys, ",")
	if known, ok := p.segments[name]; ok {
		return known
	}
	distinct := map[string]topology.Segment{}
	for i := range p.byName {
		if s, missing := topology.SegmentOf(p.byName[i].Labels, keys); missing == "" {
			distinct[s.String()] = s
		}
	}
	p.segments[name] = topology.Normalize(slices.Collect(maps.Values(distinct)))
	return p.segments[name]
}

// An Cache knows the places of the cluster. It says what the cache says and is
// kept between claims only because each would look at every node.
type Cache struct {
	client client.Reader // the cache
	driver string

	mu    sync.Mutex
	nodes *Nodes // nil if nobody has looked since a node changed
}

// Nodes are those of now.
func (a *Cache) Nodes(ctx context.Context) (*Nodes, error) {
	a.mu.Lock() // Also while looking: what changes meanwhile is forgotten after.
	defer a.mu.Unlock()
	if a.nodes != nil {
		return a.nodes, nil
	}
	var err error
	a.nodes, err = a.list(ctx)
	return a.nodes, err
}

// list goes through all nodes, once.
func (a *Cache) list(ctx context.Context) (*Nodes, error) {
	// Nothing of what is listed is changed, so it need not be copied.
	nodes, drivers := &corev1.NodeList{}, &storagev1.CSINodeList{}
	if err := a.client.List(ctx, nodes, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("reading nodes: %w", err)
	}
	if err := a.client.List(ctx, drivers, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("reading CSINodes: %w", err)
	}
	keys := make(map[string][]string, len(drivers.Items))
	for i := range drivers.Items {
		keys[drivers.Items[i].Name], _ = topology.Keys(&drivers.Items[i], a.driver)
	}
	var all []NodeTopology
	for i := range nodes.Items {
		name := nodes.Items[i].Name
		all = append(all, NodeTopology{Name: name, Labels: nodes.Items[i].Labels, Keys: keys[name]})
	}
	return NewNodes(all...), nil
}

// invalidate has the next claim look again.
func (a *Cache) invalidate() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.nodes = nil
}

// InvalidateBefore has the atlas forget what it knows when a node comes, goes or moves,
// or the driver on one does: before a predicate is asked, so before any claim is
// woken up. Nodes report far more often than that.
func (a *Cache) InvalidateBefore(p predicate.Predicate) predicate.Predicate {
	return predicate.Funcs{
		CreateFunc: func(e event.CreateEvent) bool {
			a.invalidate()
			return p.Create(e)
		},
		UpdateFunc: func(e event.UpdateEvent) bool {
			if a.isMoved(e.ObjectOld, e.ObjectNew) {
				a.invalidate()
			}
			return p.Update(e)
		},
		DeleteFunc: func(e event.DeleteEvent) bool {
			a.invalidate()
			return p.Delete(e)
		},
	}
}

// isMoved tells whether a change of a Node or CSINode is about a place.
func (a *Cache) isMoved(before, after client.Object) bool {
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
