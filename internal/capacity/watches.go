package capacity

import (
	"context"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/topology"
)

// A watch is a kind of object, the events that matter, and the pairs that they
// enqueue.
type watch struct {
	object    client.Object
	predicate predicate.Predicate
	handler   handler.TypedEventHandler[client.Object, pair]
}

// watches are all watches of the controller. At the start, the classes enqueue all
// pairs and the existing objects enqueue the obsolete ones, so the initial lists of
// the other kinds enqueue nothing.
func (r *Reconciler) watches() []watch {
	all := []watch{
		{&storagev1.CSIStorageCapacity{}, r.unexpectedObjects(), handler.TypedEnqueueRequestsFromMapFunc(pairsOfObject)},
		{&storagev1.StorageClass{}, classCreatedOrDeleted(), handler.TypedEnqueueRequestsFromMapFunc(r.pairsOfClass)},
		{&corev1.PersistentVolume{}, r.volumeSizeChanged(), handler.TypedEnqueueRequestsFromMapFunc(r.pairsOfVolume)},
	}
	if r.segments.fixed == nil {
		all = append(all,
			watch{&corev1.Node{}, r.nodeSegmentChanged(), r.enqueueChangedSegments()},
			watch{&storagev1.CSINode{}, r.topologyKeysChanged(), r.enqueueChangedSegments()},
		)
	}
	if whole := r.segments.fixed != nil && len(r.segments.fixed) == 0; !whole {
		all = append(all, watch{&corev1.PersistentVolumeClaim{}, selectedNodeRemoved(), handler.TypedEnqueueRequestsFromMapFunc(r.pairsOfClaim)})
	}
	return all
}

func ignoreUpdate(event.UpdateEvent) bool { return false }

// classCreatedOrDeleted selects classes that are created or deleted: the fields
// that matter are immutable.
func classCreatedOrDeleted() predicate.Funcs { return predicate.Funcs{UpdateFunc: ignoreUpdate} }

// pairsOfClass maps a class to all its pairs.
func (r *Reconciler) pairsOfClass(ctx context.Context, o client.Object) []pair {
	class, ok := o.(*storagev1.StorageClass)
	if !ok || !r.options.isSelected(class) {
		return nil
	}
	segments, err := r.segments.get(ctx)
	if err != nil {
		r.log.Error(err, "Failed to list the segments of a class", "class", class.Name)
		return nil
	}
	return pairs([]string{class.Name}, slices.Collect(maps.Keys(segments)))
}

// pairsOfObject maps an object to its pair.
func pairsOfObject(_ context.Context, o client.Object) []pair {
	object, ok := o.(*storagev1.CSIStorageCapacity)
	if !ok {
		return nil
	}
	return []pair{pairOf(object)}
}

// unexpectedObjects selects objects that existed before this process, objects that
// should not have been created, and objects that were deleted. All other events
// come from our own writes.
func (r *Reconciler) unexpectedObjects() predicate.Funcs {
	return predicate.Funcs{
		CreateFunc: func(e event.CreateEvent) bool {
			object, ok := e.Object.(*storagev1.CSIStorageCapacity)
			return ok && (e.IsInInitialList || r.isUnexpected(object))
		},
		UpdateFunc: ignoreUpdate,
	}
}

func (r *Reconciler) isUnexpected(object *storagev1.CSIStorageCapacity) bool {
	ctx, p := context.Background(), pairOf(object) // Reads only the cache.
	segments, err := r.segments.get(ctx)
	if err != nil || segments[p.segment] == nil {
		return true
	}
	if class, err := r.class(ctx, p.class); err != nil || class == nil {
		return true
	}
	same, err := r.objects(ctx, p)
	return err != nil || len(same) > 1
}

// volumeSizeChanged selects volumes of the driver that are created, deleted or
// expanded.
func (r *Reconciler) volumeSizeChanged() predicate.Funcs {
	ours := func(o client.Object) bool {
		volume, ok := o.(*corev1.PersistentVolume)
		return ok && volume.Spec.CSI != nil && volume.Spec.CSI.Driver == r.options.Driver
	}
	size := func(o client.Object) int64 {
		if volume, ok := o.(*corev1.PersistentVolume); ok {
			return kube.BytesAtMost(*volume.Spec.Capacity.Storage())
		}
		return 0
	}
	return predicate.Funcs{
		CreateFunc: func(e event.CreateEvent) bool { return !e.IsInInitialList && ours(e.Object) },
		UpdateFunc: func(e event.UpdateEvent) bool { return ours(e.ObjectNew) && size(e.ObjectOld) != size(e.ObjectNew) },
		DeleteFunc: func(e event.DeleteEvent) bool { return ours(e.Object) },
	}
}

// pairsOfVolume maps a volume to the pairs whose capacity it may use: those of all
// classes in its segments, or those of its own class if it is accessible from
// everywhere.
func (r *Reconciler) pairsOfVolume(ctx context.Context, o client.Object) []pair {
	volume, ok := o.(*corev1.PersistentVolume)
	if !ok {
		return nil
	}
	near, err := r.segments.reachable(ctx, volume.Spec.NodeAffinity)
	if err != nil {
		r.log.Error(err, "Failed to list the segments of a volume", "volume", volume.Name)
		return nil
	}
	if volume.Spec.NodeAffinity == nil {
		return pairs([]string{volume.Spec.StorageClassName}, near)
	}
	return r.pairsOfSegments(ctx, near)
}

// selectedNodeRemoved selects claims whose selected node was removed so that the
// scheduler chooses another one: the published capacity of the last node was wrong.
func selectedNodeRemoved() predicate.Funcs {
	return predicate.Funcs{
		CreateFunc: func(event.CreateEvent) bool { return false },
		UpdateFunc: func(e event.UpdateEvent) bool {
			claim, ok := e.ObjectNew.(*corev1.PersistentVolumeClaim)
			waits := ok && claim.Spec.VolumeName == "" // The cache has no annotations of bound claims.
			return waits && e.ObjectOld.GetAnnotations()[kube.AnnSelectedNode] != "" && claim.Annotations[kube.AnnSelectedNode] == ""
		},
		DeleteFunc: func(event.DeleteEvent) bool { return false },
	}
}

// pairsOfClaim maps a claim to the pair of its class and its selected node.
func (r *Reconciler) pairsOfClaim(ctx context.Context, o client.Object) []pair {
	claim, ok := o.(*corev1.PersistentVolumeClaim)
	name := o.GetAnnotations()[kube.AnnSelectedNode]
	if !ok || name == "" || claim.Spec.StorageClassName == nil {
		return nil
	}
	segment := r.segmentOfNodeName(ctx, name)
	if segment == nil {
		return nil
	}
	return []pair{{class: *claim.Spec.StorageClassName, segment: segment.String()}}
}

// segmentOfNodeName is the segment of a node, or nil if this process does not
// publish it.
func (r *Reconciler) segmentOfNodeName(ctx context.Context, name string) topology.Segment {
	switch r.options.Node {
	case name:
		return r.options.Segment
	case "":
		node := &corev1.Node{}
		if err := r.client.Get(ctx, types.NamespacedName{Name: name}, node); err != nil {
			return nil // The node is gone, and its segment may be too.
		}
		return r.segmentOfNode(ctx, node)
	default:
		return nil // The provisioner on that node publishes it.
	}
}

// nodeSegmentChanged selects nodes that are created, deleted or change their
// segment. Nodes are updated every few seconds, and this happens rarely.
func (r *Reconciler) nodeSegmentChanged() predicate.Funcs {
	return predicate.Funcs{
		CreateFunc: func(e event.CreateEvent) bool { return !e.IsInInitialList },
		UpdateFunc: func(e event.UpdateEvent) bool {
			before, after := e.ObjectOld.GetLabels(), e.ObjectNew.GetLabels()
			if maps.Equal(before, after) {
				return false
			}
			ctx := context.Background() // Reads only the cache.
			return !equalSegments(r.segmentOfNode(ctx, e.ObjectOld), r.segmentOfNode(ctx, e.ObjectNew))
		},
	}
}

// topologyKeysChanged selects nodes where the driver is added, removed or changes
// its topology keys.
func (r *Reconciler) topologyKeysChanged() predicate.Funcs {
	keys := func(o client.Object) []string {
		node, ok := o.(*storagev1.CSINode)
		if !ok {
			return nil
		}
		keys, _ := topology.Keys(node, r.options.Driver)
		return keys
	}
	return predicate.Funcs{
		CreateFunc: func(e event.CreateEvent) bool { return !e.IsInInitialList && len(keys(e.Object)) > 0 },
		UpdateFunc: func(e event.UpdateEvent) bool { return !slices.Equal(keys(e.ObjectOld), keys(e.ObjectNew)) },
		DeleteFunc: func(e event.DeleteEvent) bool { return len(keys(e.Object)) > 0 },
	}
}

// segmentOfNode is the segment of a node, with its CSINode from the cache.
func (r *Reconciler) segmentOfNode(ctx context.Context, node client.Object) topology.Segment {
	driver := &storagev1.CSINode{}
	if err := r.client.Get(ctx, types.NamespacedName{Name: node.GetName()}, driver, client.UnsafeDisableDeepCopy); err != nil {
		return nil // Its creation is an event of its own.
	}
	return segmentOf(node.GetLabels(), driver, r.options.Driver)
}

func equalSegments(a, b topology.Segment) bool { return (a == nil) == (b == nil) && maps.Equal(a, b) }

type queue = workqueue.TypedRateLimitingInterface[pair]

// enqueueChangedSegments refreshes the segment cache and enqueues the pairs of
// segments that were added or removed. It does not use the object of the event, so
// that it also finds a node whose CSINode is gone from the cache already.
func (r *Reconciler) enqueueChangedSegments() handler.TypedEventHandler[client.Object, pair] {
	renew := func(ctx context.Context, q queue) {
		changed, err := r.segments.refresh(ctx)
		if err != nil {
			r.log.Error(err, "Failed to list the segments of the cluster")
			return
		}
		for _, p := range r.pairsOfSegments(ctx, changed) {
			q.Add(p)
		}
	}
	return handler.TypedFuncs[client.Object, pair]{
		CreateFunc: func(ctx context.Context, _ event.TypedCreateEvent[client.Object], q queue) { renew(ctx, q) },
		UpdateFunc: func(ctx context.Context, _ event.TypedUpdateEvent[client.Object], q queue) { renew(ctx, q) },
		DeleteFunc: func(ctx context.Context, _ event.TypedDeleteEvent[client.Object], q queue) { renew(ctx, q) },
	}
}

// pairsOfSegments are the pairs of some segments with all classes.
func (r *Reconciler) pairsOfSegments(ctx context.Context, segments []string) []pair {
	if len(segments) == 0 {
		return nil
	}
	classes, err := r.classes(ctx)
	if err != nil {
		r.log.Error(err, "Failed to list the StorageClasses of the driver")
		return nil
	}
	return pairs(classes, segments)
}

func pairs(classes, segments []string) []pair {
	all := make([]pair, 0, len(classes)*len(segments))
	for _, class := range classes {
		for _, segment := range segments {
			all = append(all, pair{class, segment})
		}
	}
	return all
}
