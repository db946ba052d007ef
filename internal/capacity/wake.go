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
	kind  client.Object
	when  predicate.Predicate
	wakes handler.TypedEventHandler[client.Object, pair]
}

// watches are all. At a start the classes wake all pairs and the objects the
// obsolete ones, so what else is in the first lists is no news.
func (r *Reconciler) watches() []watch {
	all := []watch{
		{&storagev1.CSIStorageCapacity{}, r.surprises(), handler.TypedEnqueueRequestsFromMapFunc(ofObject)},
		{&storagev1.StorageClass{}, comesOrGoes(), handler.TypedEnqueueRequestsFromMapFunc(r.ofClass)},
		{&corev1.PersistentVolume{}, r.takesOrGivesRoom(), handler.TypedEnqueueRequestsFromMapFunc(r.ofVolume)},
	}
	if r.survey.only == nil {
		all = append(all,
			watch{&corev1.Node{}, r.nodeMoves(), r.onSurvey()},
			watch{&storagev1.CSINode{}, r.driverMoves(), r.onSurvey()},
		)
	}
	if whole := r.survey.only != nil && len(r.survey.only) == 0; !whole {
		all = append(all, watch{&corev1.PersistentVolumeClaim{}, foundNoRoom(), handler.TypedEnqueueRequestsFromMapFunc(r.ofClaim)})
	}
	return all
}

func never(event.UpdateEvent) bool { return false }

// comesOrGoes lets through classes that come or go: all that matters about one
// is immutable.
func comesOrGoes() predicate.Funcs { return predicate.Funcs{UpdateFunc: never} }

// ofClass leads from a class to all its pairs.
func (r *Reconciler) ofClass(ctx context.Context, o client.Object) []pair {
	class, ok := o.(*storagev1.StorageClass)
	if !ok || !r.options.serves(class) {
		return nil
	}
	known, err := r.survey.segments(ctx)
	if err != nil {
		r.log.Error(err, "The segments of a class could not be found", "class", class.Name)
		return nil
	}
	return pairs([]string{class.Name}, slices.Collect(maps.Keys(known)))
}

// ofObject leads from an object to its pair.
func ofObject(_ context.Context, o client.Object) []pair {
	object, ok := o.(*storagev1.CSIStorageCapacity)
	if !ok {
		return nil
	}
	return []pair{pairOf(object)}
}

// surprises lets through the objects that there were before us, those that
// should not have come, and those that went. Others are our own work.
func (r *Reconciler) surprises() predicate.Funcs {
	return predicate.Funcs{
		CreateFunc: func(e event.CreateEvent) bool {
			object, ok := e.Object.(*storagev1.CSIStorageCapacity)
			return ok && (e.IsInInitialList || r.unexpected(object))
		},
		UpdateFunc: never,
	}
}

func (r *Reconciler) unexpected(object *storagev1.CSIStorageCapacity) bool {
	ctx, p := context.Background(), pairOf(object) // All is in the cache.
	known, err := r.survey.segments(ctx)
	if err != nil || known[p.segment] == nil {
		return true
	}
	if class, err := r.class(ctx, p.class); err != nil || class == nil {
		return true
	}
	same, err := r.objects(ctx, p)
	return err != nil || len(same) > 1
}

// takesOrGivesRoom lets through volumes of the driver that come, go or grow.
func (r *Reconciler) takesOrGivesRoom() predicate.Funcs {
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

// ofVolume leads from a volume to the pairs that its room may be taken from:
// those of all classes where it is, and if it is everywhere those of its class.
func (r *Reconciler) ofVolume(ctx context.Context, o client.Object) []pair {
	volume, ok := o.(*corev1.PersistentVolume)
	if !ok {
		return nil
	}
	known, err := r.survey.segments(ctx)
	if err != nil {
		r.log.Error(err, "The segments of a volume could not be found", "volume", volume.Name)
		return nil
	}
	if volume.Spec.NodeAffinity == nil {
		return pairs([]string{volume.Spec.StorageClassName}, slices.Collect(maps.Keys(known)))
	}
	var near []string
	for text, segment := range known {
		if segment.Reaches(volume.Spec.NodeAffinity) {
			near = append(near, text)
		}
	}
	return r.ofSegments(ctx, near)
}

// foundNoRoom lets through claims for which the scheduler is asked for another
// node: what it knows about the room near the last one was not true.
func foundNoRoom() predicate.Funcs {
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

// ofClaim leads from a claim to the pair of its class and its selected node.
func (r *Reconciler) ofClaim(ctx context.Context, o client.Object) []pair {
	claim, ok := o.(*corev1.PersistentVolumeClaim)
	name := o.GetAnnotations()[kube.AnnSelectedNode]
	if !ok || name == "" || claim.Spec.StorageClassName == nil {
		return nil
	}
	segment := r.segmentOf(ctx, name)
	if segment == nil {
		return nil
	}
	return []pair{{class: *claim.Spec.StorageClassName, segment: segment.String()}}
}

// segmentOf is where a node is, nil if that is not ours to know.
func (r *Reconciler) segmentOf(ctx context.Context, name string) topology.Segment {
	switch r.options.Node {
	case name:
		return r.options.Segment
	case "":
		node := &corev1.Node{}
		if err := r.client.Get(ctx, types.NamespacedName{Name: name}, node); err != nil {
			return nil // It is gone, and perhaps its segment with it.
		}
		return r.placeOf(ctx, node)
	default:
		return nil // The provisioner there publishes it.
	}
}

// nodeMoves lets through nodes that come, go or change their segment. That is
// seldom, and nodes change every few seconds.
func (r *Reconciler) nodeMoves() predicate.Funcs {
	return predicate.Funcs{
		CreateFunc: func(e event.CreateEvent) bool { return !e.IsInInitialList },
		UpdateFunc: func(e event.UpdateEvent) bool {
			before, after := e.ObjectOld.GetLabels(), e.ObjectNew.GetLabels()
			if maps.Equal(before, after) {
				return false
			}
			ctx := context.Background() // All is in the cache.
			return !equalPlaces(r.placeOf(ctx, e.ObjectOld), r.placeOf(ctx, e.ObjectNew))
		},
	}
}

// driverMoves lets through nodes where the driver comes, goes or changes its
// topology keys.
func (r *Reconciler) driverMoves() predicate.Funcs {
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

// placeOf is the segment of a node by what the cache has of its CSINode.
func (r *Reconciler) placeOf(ctx context.Context, node client.Object) topology.Segment {
	driver := &storagev1.CSINode{}
	if err := r.client.Get(ctx, types.NamespacedName{Name: node.GetName()}, driver, client.UnsafeDisableDeepCopy); err != nil {
		return nil // When it comes that is an event of its own.
	}
	return place(node.GetLabels(), driver, r.options.Driver)
}

func equalPlaces(a, b topology.Segment) bool { return (a == nil) == (b == nil) && maps.Equal(a, b) }

type queue = workqueue.TypedRateLimitingInterface[pair]

// onSurvey renews the survey and wakes up the pairs of the segments that came
// or went. Which node the event was about does not matter, so that none is
// missed of which the cache has forgotten one half already.
func (r *Reconciler) onSurvey() handler.TypedEventHandler[client.Object, pair] {
	renew := func(ctx context.Context, q queue) {
		changed, err := r.survey.renew(ctx)
		if err != nil {
			r.log.Error(err, "The segments of the cluster could not be found")
			return
		}
		for _, p := range r.ofSegments(ctx, changed) {
			q.Add(p)
		}
	}
	return handler.TypedFuncs[client.Object, pair]{
		CreateFunc: func(ctx context.Context, _ event.TypedCreateEvent[client.Object], q queue) { renew(ctx, q) },
		UpdateFunc: func(ctx context.Context, _ event.TypedUpdateEvent[client.Object], q queue) { renew(ctx, q) },
		DeleteFunc: func(ctx context.Context, _ event.TypedDeleteEvent[client.Object], q queue) { renew(ctx, q) },
	}
}

// ofSegments are the pairs of some segments with all classes.
func (r *Reconciler) ofSegments(ctx context.Context, segments []string) []pair {
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
