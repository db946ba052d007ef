package capacity

import (
	"context"
	"fmt"
	"slices"
	"strings"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/topology"
)

// state is the observed state of one pair.
type state struct {
	pair     pair
	class    *storagev1.StorageClass        // nil if its capacity is not published
	segment  topology.Segment               // nil if no node is in it
	objects  []storagev1.CSIStorageCapacity // of the pair; the first one stays
	response *csipb.GetCapacityResponse     // nil if the pair is not wanted
	owner    *metav1.OwnerReference         // of objects; nil for none
}

// isWanted reports whether the pair should have an object.
func (s *state) isWanted() bool { return s.class != nil && s.segment != nil }

// observe reads the cache and, for a wanted pair, the capacity from the driver.
func (r *Reconciler) observe(ctx context.Context, p pair) (state, error) {
	s := state{pair: p, owner: r.owner}
	var err error
	if s.class, err = r.class(ctx, p.class); err != nil {
		return s, err
	}
	segments, err := r.segments.get(ctx)
	if err != nil {
		return s, err
	}
	s.segment = segments[p.segment]
	if s.objects, err = r.objects(ctx, p); err != nil || !s.isWanted() {
		return s, err
	}
	s.response, err = r.getCapacity(ctx, request(&s))
	return s, err
}

// request is the GetCapacity request for a wanted pair.
func request(s *state) *csipb.GetCapacityRequest {
	q := &csipb.GetCapacityRequest{Parameters: driverParameters(s.class)}
	if len(s.segment) > 0 {
		q.AccessibleTopology = &csipb.Topology{Segments: s.segment}
	}
	return q
}

// class reads a class; it is nil unless its capacity is published.
func (r *Reconciler) class(ctx context.Context, name string) (*storagev1.StorageClass, error) {
	class := &storagev1.StorageClass{}
	err := r.client.Get(ctx, types.NamespacedName{Name: name}, class)
	switch {
	case client.IgnoreNotFound(err) != nil:
		return nil, fmt.Errorf("reading StorageClass %s: %w", name, err)
	case err == nil && r.isPublished(class):
		return class, nil
	default:
		return nil, nil
	}
}

// classes are the names of the classes whose capacity is published.
func (r *Reconciler) classes(ctx context.Context) ([]string, error) {
	all := &storagev1.StorageClassList{}
	if err := r.client.List(ctx, all); err != nil {
		return nil, fmt.Errorf("reading StorageClasses: %w", err)
	}
	var names []string
	for i := range all.Items {
		if r.isPublished(&all.Items[i]) {
			names = append(names, all.Items[i].Name)
		}
	}
	return names, nil
}

func (r *Reconciler) isPublished(class *storagev1.StorageClass) bool {
	return r.hasGetCapacity() && r.options.isSelected(class)
}

// objects are the objects of a pair, the oldest first, so that all processes keep
// the same one of several.
func (r *Reconciler) objects(ctx context.Context, p pair) ([]storagev1.CSIStorageCapacity, error) {
	list := &storagev1.CSIStorageCapacityList{}
	err := r.client.List(ctx, list, client.InNamespace(r.options.Namespace), client.MatchingFields{objectsByPair: p.String()})
	if err != nil {
		return nil, fmt.Errorf("reading the CSIStorageCapacity objects of %s: %w", p, err)
	}
	slices.SortFunc(list.Items, func(a, b storagev1.CSIStorageCapacity) int {
		if by := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); by != 0 {
			return by
		}
		return strings.Compare(a.Name, b.Name)
	})
	return list.Items, nil
}
