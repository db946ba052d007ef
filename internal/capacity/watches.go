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

// A watch says which changes of a kind wake which pairs up.
type watch struct {
	object    client.Object
	predicate predicate.Predicate
	handler   handler.TypedEventHandler[client.Object, pair]
}

// watches are all. At a start the classes wake all pairs and the objects the
// obsolete ones, so what else is in the first lists is no news.
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

// classCreatedOrDeleted lets through classes that come or go: all that matters about one
// is immutable.
func classCreatedOrDeleted() predicate.Funcs { return predicate.Funcs{UpdateFunc: ignoreUpdate} }

// pairsOfClass leads from a class to all its pairs.
func (r *Reconciler) pairsOfClass(ctx context.Context, o client.Object) []pair {
	class, ok := o.(*storagev1.StorageClass)
	if !ok || !r.options.isSelected(class) {
		return nil
	}
	known, err := r.segments.get(ctx)
	if err != nil {
		r.log.Error(err, "The segments of a class could not be found", "class", class.Name)
		return nil
	}
	return pairs([]string{class.Name}, slices.Collect(maps.Keys(known)))
}

// pairsOfObject leads from an object to its pair.
func pairsOfObject(_ context.Context, o client.Object) []pair {
	object, ok := o.(*storagev1.CSIStorageCapacity)
	if !ok {
		return nil
	}
	return []pair{pairOf(object)}
}

// unexpectedObjects lets through the objects that there were before us, those that
// should not have come, and those that went. Others are our own work.
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
	ctx, p := context.Background(), pairOf(object) // All is in the cache.
	known, err := r.segments.get(ctx)
	if err != nil || known[p.segment] == nil {
		return true
	}
	if class, err := r.class(ctx, p.class); err != nil || class == nil {
		return true
	}
	same, err := r.objects(ctx, p)
	return err != nil || len(same) > 1
}

// volumeSizeChanged lets through volumes of the driver that come, go or grow.
func (r *Reconciler) volumeSizeChanged() predicate.Funcs {
	ours := func(o client.Object) bool {
		volume, ok := o.(*corev1.PersistentVolume)
		return ok && volume.Spec.CSI != nil && volume.Spec.CSI.Driver == r.options.Driver
	}
	size := func(o client.Object) int64 {
		if volume, ok := o.(*corev1.PersistentVolume); ok {
			return volume.Spec.Capacity.Storage().Value()
		}
		return 0
	}
	return predicate.Funcs{
		CreateFunc: func(e event.CreateEvent) bool { return !e.IsInInitialList && ours(e.Object) },
		UpdateFunc: func(e event.UpdateEvent) bool { return ours(e.ObjectNew) && size(e.ObjectOld) != size(e.ObjectNew) },
		DeleteFunc: func(e event.DeleteEvent) bool { return ours(e.Object) },
	}
}

// pairsOfVolume leads from a volume to the pairs that its room may be taken from:
// those of all classes where it is, and if it is everywhere those of its class.
func (r *Reconciler) pairsOfVolume(ctx context.Context, o client.Object) []pair {
	volume, ok := o.(*corev1.PersistentVolume)
	if !ok {
		return nil
	}
	known, err := r.segments.get(ctx)
	if err != nil {
		r.log.Error(err, "The segments of a volume could not be found", "volume", volume.Name)
		return nil
	}
	if volume.Spec.NodeAffinity == nil {
		return pairs([]string{volume.Spec.StorageClassName}, slices.Collect(maps.Keys(known)))
	}
	var near []string
	for text, segment := range known {
		if segment.CanReach(volume.Spec.NodeAffinity) {
			near = append(near, text)
		}
	}
	return r.pairsOfSegments(ctx, near)
}

// selectedNodeRemoved lets through claims for which the scheduler is asked for another
// node: what it knows about the room near the last one was not true.
func selectedNodeRemoved() predicate.Funcs {
	return predicate.Funcs{
		CreateFunc: func(event.CreateEvent) bool { return false },
		UpdateFunc: func(e event.UpdateEvent) bool {
			claim, ok := e.ObjectNew.(*corev1.PersistentVolumeClaim)
			waits := ok && claim.Spec.VolumeName == "" // Of others the cache does not keep annotations.
			return waits && e.ObjectOld.GetAnnotations()[kube.AnnSelectedNode] != "" && claim.Annotations[kube.AnnSelectedNode] == ""
		},
		DeleteFunc: func(event.DeleteEvent) bool { return false },
	}
}

// pairsOfClaim leads from a claim to the pair of its class and its selected node.
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

// segmentOfNodeName is where a node is, nil if that is not ours to know.
func (r *Reconciler) segmentOfNodeName(ctx context.Context, name string) topology.Segment {
	switch r.options.Node {
	case name:
		return r.options.Segment
	case "":
		node := &corev1.Node{}
		if err := r.client.Get(ctx, types.NamespacedName{Name: name}, node); err != nil {
			return nil // It is gone, and perhaps its segment with it.
		}
		return r.segmentOfNode(ctx, node)
	default:
		return nil // The provisioner there publishes it.
	}
}

// nodeSegmentChanged lets through nodes that come, go or change their segment. That is
// seldom, and nodes change every few seconds.
func (r *Reconciler) nodeSegmentChanged() predicate.Funcs {
	return predicate.Funcs{
		CreateFunc: func(e event.CreateEvent) bool { return !e.IsInInitialList },
		UpdateFunc: func(e event.UpdateEvent) bool {
			before, after := e.ObjectOld.GetLabels(), e.ObjectNew.GetLabels()
			if maps.Equal(before, after) {
				return false
			}
			ctx := context.Background() // All is in the cache.
			return !equalSegments(r.segmentOfNode(ctx, e.ObjectOld), r.segmentOfNode(ctx, e.ObjectNew))
		},
	}
}

// topologyKeysChanged lets through nodes where the driver comes, goes or changes its
// topology keys.
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

// segmentOfNode is the segment of a node by what the cache has of its CSINode.
func (r *Reconciler) segmentOfNode(ctx context.Context, node client.Object) topology.Segment {
	driver := &storagev1.CSINode{}
	if err := r.client.Get(ctx, types.NamespacedName{Name: node.GetName()}, driver, client.UnsafeDisableDeepCopy); err != nil {
		return nil // When it comes that is an event of its own.
	}
	return segmentOf(node.GetLabels(), driver, r.options.Driver)
}

func equalSegments(a, b topology.Segment) bool { return (a == nil) == (b == nil) && maps.Equal(a, b) }

type queue = workqueue.TypedRateLimitingInterface[pair]

// enqueueChangedSegments renews the survey and wakes up the pairs of the segments that came
// or went. Which node the event was about does not matter, so that none is
// missed of which the cache has forgotten one half already.
func (r *Reconciler) enqueueChangedSegments() handler.TypedEventHandler[client.Object, pair] {
	renew := func(ctx context.Context, q queue) {
		changed, err := r.segments.refresh(ctx)
		if err != nil {
			r.log.Error(err, "The segments of the cluster could not be found")
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
		r.log.Error(err, "The classes of the driver could not be found")
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
