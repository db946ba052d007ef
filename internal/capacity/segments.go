package capacity

import (
	"context"
	"fmt"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/topology"
)

// segmentSet by their text. One that was handed out is never changed.
type segmentSet map[string]topology.Segment

// A segmentCache knows the segments of the cluster: those of the nodes that have the
// driver and all labels that it needs. It says what the cache says and is only
// kept because every poll of every pair asks, so that each would look at every
// node. Whoever sees a node change in a way that matters renews it.
type segmentCache struct {
	client client.Reader // the cache
	driver string
	fixed  topology.Segment // the one that never changes, nil if nodes have to be looked at

	mu      sync.Mutex
	current segmentSet // nil if nobody has looked yet
}

// get are those of now.
func (s *segmentCache) get(ctx context.Context) (segmentSet, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current != nil {
		return s.current, nil
	}
	found, err := s.list(ctx)
	s.current = found
	return found, err
}

// refresh looks again and returns which segments have come or gone since the
// last time.
func (s *segmentCache) refresh(ctx context.Context) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.current
	found, err := s.list(ctx)
	s.current = found
	if err != nil {
		return nil, err
	}
	var changed []string
	for text := range before {
		if _, still := found[text]; !still {
			changed = append(changed, text)
		}
	}
	for text := range found {
		if _, already := before[text]; !already {
			changed = append(changed, text)
		}
	}
	slices.Sort(changed)
	return changed, nil
}

// list goes through all nodes, once.
func (s *segmentCache) list(ctx context.Context) (segmentSet, error) {
	if s.fixed != nil {
		return segmentSet{s.fixed.String(): s.fixed}, nil
	}
	// Nothing of what is listed is changed, so it need not be copied.
	nodes, drivers := &corev1.NodeList{}, &storagev1.CSINodeList{}
	if err := s.client.List(ctx, nodes, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("reading nodes: %w", err)
	}
	if err := s.client.List(ctx, drivers, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("reading CSINodes: %w", err)
	}
	labels := make(map[string]map[string]string, len(nodes.Items))
	for i := range nodes.Items {
		labels[nodes.Items[i].Name] = nodes.Items[i].Labels
	}
	found := segmentSet{}
	for i := range drivers.Items {
		at, ok := labels[drivers.Items[i].Name]
		if !ok {
			continue // The node is gone, its CSINode follows.
		}
		if segment := segmentOf(at, &drivers.Items[i], s.driver); segment != nil {
			found[segment.String()] = segment
		}
	}
	return found, nil
}

// segmentOf is the segment that a node is in, or nil if the driver is not there,
// has no topology there, or a label is missing.
func segmentOf(labels map[string]string, node *storagev1.CSINode, driver string) topology.Segment {
	keys, _ := topology.Keys(node, driver)
	if len(keys) == 0 {
		return nil
	}
	segment, _ := topology.SegmentOf(labels, keys)
	return segment
}
