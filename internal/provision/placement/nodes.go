package placement

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/topology"
)

// NodeTopology is the driver's topology on a node.
type NodeTopology struct {
	Name   string
	Labels map[string]string
	Keys   []string // of the driver, from the CSINode
}

// Nodes are all nodes on which the driver has topology keys. They are immutable.
type Nodes struct {
	byName []NodeTopology

	mu       sync.Mutex
	segments map[string][]topology.Segment // by what they are restricted to
}

// NewNodes returns those of the given nodes on which the driver has topology keys.
func NewNodes(all ...NodeTopology) *Nodes {
	all = slices.DeleteFunc(all, func(p NodeTopology) bool { return len(p.Keys) == 0 })
	slices.SortFunc(all, func(a, b NodeTopology) int { return strings.Compare(a.Name, b.Name) })
	return &Nodes{byName: all, segments: map[string][]topology.Segment{}}
}

// Segments returns the distinct segments of all nodes that have a label for each key that the
// driver has there. The keys of two nodes may differ, as while the driver is upgraded. If
// within is not empty, only nodes inside one of these segments count, which may have fewer
// keys than the driver, or other labels. Callers must not change the result: all calls with
// the same argument return the same slice.
func (n *Nodes) Segments(within []topology.Segment) []topology.Segment {
	if n == nil {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	restriction := fmt.Sprint(within)
	if known, ok := n.segments[restriction]; ok {
		return known
	}
	distinct := map[string]topology.Segment{}
	for i := range n.byName {
		node := &n.byName[i]
		if len(within) > 0 && !node.isWithin(within) {
			continue
		}
		if s, missing := topology.SegmentOf(node.Labels, node.Keys); missing == "" {
			distinct[s.String()] = s
		}
	}
	n.segments[restriction] = topology.Normalize(slices.Collect(maps.Values(distinct)))
	return n.segments[restriction]
}

// isWithin reports whether the node is in one of the segments.
func (n *NodeTopology) isWithin(segments []topology.Segment) bool {
	return slices.ContainsFunc(segments, func(s topology.Segment) bool { return s.Contains(n.Labels) })
}

// A Cache has the topology of all nodes, as the manager's cache shows it. It is kept
// between claims, because otherwise each claim would list all nodes.
type Cache struct {
	client client.Reader
	driver string
	live   bool // nodes are listed for each claim

	mu    sync.Mutex
	nodes *Nodes // nil if not listed since a node has changed
}

// NewCache returns the topology cache of a driver, which reads the manager's cache.
func NewCache(cached client.Reader, driver string) *Cache {
	return &Cache{client: cached, driver: driver}
}

// NewLive returns a cache that keeps nothing and reads the API server, for a driver that had no
// topology at the start, and may get one by an upgrade: nodes are not watched then.
func NewLive(apiReader client.Reader, driver string) *Cache {
	return &Cache{client: apiReader, driver: driver, live: true}
}

// Nodes returns the current nodes.
func (c *Cache) Nodes(ctx context.Context) (*Nodes, error) {
	if c.live {
		return c.list(ctx)
	}
	c.mu.Lock() // Also while listing: a change meanwhile invalidates the result.
	defer c.mu.Unlock()
	if c.nodes != nil {
		return c.nodes, nil
	}
	var err error
	c.nodes, err = c.list(ctx)
	return c.nodes, err
}

// Node returns the driver's topology on a node, without keys if the node does not have
// the driver; nil if the node or its CSINode does not exist.
func (c *Cache) Node(ctx context.Context, name string) (*NodeTopology, error) {
	var node *corev1.Node
	var csiNode *storagev1.CSINode
	if err := kube.GetIfExists(ctx, c.client, types.NamespacedName{Name: name}, &node); err != nil || node == nil {
		return nil, err
	}
	if err := kube.GetIfExists(ctx, c.client, types.NamespacedName{Name: name}, &csiNode); err != nil || csiNode == nil {
		return nil, err
	}
	n := &NodeTopology{Name: name, Labels: node.Labels}
	n.Keys, _ = topology.Keys(csiNode, c.driver)
	return n, nil
}

// list lists all nodes and CSINodes.
func (c *Cache) list(ctx context.Context) (*Nodes, error) {
	// The objects are only read, so they need not be copied.
	nodes, drivers := &corev1.NodeList{}, &storagev1.CSINodeList{}
	if err := c.client.List(ctx, nodes, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("reading nodes: %w", err)
	}
	if err := c.client.List(ctx, drivers, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("reading CSINodes: %w", err)
	}
	keys := make(map[string][]string, len(drivers.Items))
	for i := range drivers.Items {
		keys[drivers.Items[i].Name], _ = topology.Keys(&drivers.Items[i], c.driver)
	}
	var all []NodeTopology
	for i := range nodes.Items {
		name := nodes.Items[i].Name
		all = append(all, NodeTopology{Name: name, Labels: nodes.Items[i].Labels, Keys: keys[name]})
	}
	return NewNodes(all...), nil
}

// invalidate has the next claim list the nodes again.
func (c *Cache) invalidate() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes = nil
}

// InvalidateBefore returns a predicate that invalidates the cache when the topology of a
// node changes, and then calls p: so before the event starts the reconcile of a claim.
// Nodes are updated far more often than their topology changes.
func (c *Cache) InvalidateBefore(p predicate.Predicate) predicate.Predicate {
	return predicate.Funcs{
		CreateFunc: func(e event.CreateEvent) bool {
			c.invalidate()
			return p.Create(e)
		},
		UpdateFunc: func(e event.UpdateEvent) bool {
			if c.isMoved(e.ObjectOld, e.ObjectNew) {
				c.invalidate()
			}
			return p.Update(e)
		},
		DeleteFunc: func(e event.DeleteEvent) bool {
			c.invalidate()
			return p.Delete(e)
		},
	}
}

// isMoved reports whether an update of a Node or CSINode changes the node's topology.
func (c *Cache) isMoved(before, after client.Object) bool {
	switch after := after.(type) {
	case *corev1.Node:
		was, ok := before.(*corev1.Node)
		return !ok || !maps.Equal(was.Labels, after.Labels)
	case *storagev1.CSINode:
		was, ok := before.(*storagev1.CSINode)
		if !ok {
			return true
		}
		had, _ := topology.Keys(was, c.driver)
		has, _ := topology.Keys(after, c.driver)
		return !slices.Equal(had, has)
	}
	return true
}
