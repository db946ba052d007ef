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

// segmentSet has segments by their string. It is never changed once it was
// returned.
type segmentSet map[string]topology.Segment

// A segmentCache has the segments of the cluster: those of all nodes where the
// driver is registered and that have all its topology labels. It only saves time:
// every poll of every pair needs the segments, and would iterate over all nodes.
// The watches of nodes and CSINodes refresh it.
type segmentCache struct {
	client client.Reader // the cache
	driver string
	fixed  topology.Segment // the only segment; nil if the nodes have them

	mu      sync.Mutex
	current segmentSet    // nil before the first call
	index   *segmentIndex // of current; nil until a volume needs it
}

// get returns the current segments.
func (s *segmentCache) get(ctx context.Context) (segmentSet, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.load(ctx)
}

// load lists the segments if they are not known. The caller holds the lock.
func (s *segmentCache) load(ctx context.Context) (segmentSet, error) {
	if s.current != nil {
		return s.current, nil
	}
	found, err := s.list(ctx)
	s.current, s.index = found, nil
	return found, err
}

// reachable returns the current segments that can reach a volume with this affinity.
func (s *segmentCache) reachable(ctx context.Context, affinity *corev1.VolumeNodeAffinity) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	segments, err := s.load(ctx)
	if err != nil {
		return nil, err
	}
	if s.index == nil {
		s.index = newSegmentIndex(segments)
	}
	return s.index.reachable(affinity), nil
}

// refresh lists the segments again and returns which ones were added or removed.
func (s *segmentCache) refresh(ctx context.Context) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.current
	found, err := s.list(ctx)
	s.current, s.index = found, nil
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

// list computes the segments from all nodes in the cache.
func (s *segmentCache) list(ctx context.Context) (segmentSet, error) {
	if s.fixed != nil {
		return segmentSet{s.fixed.String(): s.fixed}, nil
	}
	// The lists are only read, so they need no copy.
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
			continue // The node was deleted, and its CSINode will be.
		}
		if segment := segmentOf(at, &drivers.Items[i], s.driver); segment != nil {
			found[segment.String()] = segment
		}
	}
	return found, nil
}

// segmentOf is the segment of a node, or nil if the driver is not registered or has
// no topology there, or if a label is missing.
func segmentOf(labels map[string]string, node *storagev1.CSINode, driver string) topology.Segment {
	keys, _ := topology.Keys(node, driver)
	if len(keys) == 0 {
		return nil
	}
	segment, _ := topology.SegmentOf(labels, keys)
	return segment
}
