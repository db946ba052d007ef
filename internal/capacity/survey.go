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

// segments by their text. One that was handed out is never changed.
type segments map[string]topology.Segment

// A survey knows the segments of the cluster: those of the nodes that have the
// driver and all labels that it needs. It says what the cache says and is only
// kept because every poll of every pair asks, so that each would look at every
// node. Whoever sees a node change in a way that matters renews it.
type survey struct {
	from   client.Reader // the cache
	driver string
	only   topology.Segment // the one that never changes, nil if nodes have to be looked at

	mu    sync.Mutex
	known segments // nil if nobody has looked yet
}

// segments are those of now.
func (s *survey) segments(ctx context.Context) (segments, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known != nil {
		return s.known, nil
	}
	found, err := s.look(ctx)
	s.known = found
	return found, err
}

// renew looks again and returns which segments have come or gone since the
// last time.
func (s *survey) renew(ctx context.Context) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.known
	found, err := s.look(ctx)
	s.known = found
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

// look goes through all nodes, once.
func (s *survey) look(ctx context.Context) (segments, error) {
	if s.only != nil {
		return segments{s.only.String(): s.only}, nil
	}
	// Nothing of what is listed is changed, so it need not be copied.
	nodes, drivers := &corev1.NodeList{}, &storagev1.CSINodeList{}
	if err := s.from.List(ctx, nodes, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("reading nodes: %w", err)
	}
	if err := s.from.List(ctx, drivers, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("reading CSINodes: %w", err)
	}
	labels := make(map[string]map[string]string, len(nodes.Items))
	for i := range nodes.Items {
		labels[nodes.Items[i].Name] = nodes.Items[i].Labels
	}
	found := segments{}
	for i := range drivers.Items {
		at, ok := labels[drivers.Items[i].Name]
		if !ok {
			continue // The node is gone, its CSINode follows.
		}
		if segment := place(at, &drivers.Items[i], s.driver); segment != nil {
			found[segment.String()] = segment
		}
	}
	return found, nil
}

// place is the segment that a node is in, or nil if the driver is not there,
// has no topology there, or a label is missing.
func place(labels map[string]string, node *storagev1.CSINode, driver string) topology.Segment {
	keys, _ := topology.Keys(node, driver)
	if len(keys) == 0 {
		return nil
	}
	segment, _ := topology.Of(labels, keys)
	return segment
}
