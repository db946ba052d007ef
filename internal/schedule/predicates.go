package schedule

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// bySchedule is the index of children by the UID of their schedule.
const bySchedule = "schedule.holdfast.io/uid"

func scheduleUID(o client.Object) []string {
	if uid := o.GetLabels()[uidLabel]; uid != "" {
		return []string{uid}
	}
	return nil
}

// requestForChild maps a child to its schedule.
func requestForChild(_ context.Context, o client.Object) []reconcile.Request {
	name := o.GetLabels()[nameLabel]
	if name == "" {
		return nil
	}
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: o.GetNamespace(), Name: name}}}
}

// requestsForTarget maps a target to the schedules that select it.
func (r *Reconciler) requestsForTarget(ctx context.Context, o client.Object) []reconcile.Request {
	if !r.options.isServed(o.GetNamespace()) {
		return nil
	}
	all := r.kind.newScheduleList()
	// A status may have hundreds of targets, and there is an event for each change of a claim.
	if err := r.client.List(ctx, all, client.InNamespace(o.GetNamespace()), client.UnsafeDisableDeepCopy); err != nil {
		klog.FromContext(ctx).Error(err, "Could not list the schedules of an object", r.kind.getTerms().target, klog.KObj(o))
		return nil
	}
	var requests []reconcile.Request
	_ = meta.EachListItem(all, func(item runtime.Object) error {
		s := item.(client.Object) //nolint:forcetypeassert // All items are objects.
		selector, err := metav1.LabelSelectorAsSelector(r.kind.selectorOf(s))
		if err == nil && selector.Matches(labels.Set(o.GetLabels())) {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(s)})
		}
		return nil
	})
	return requests
}

// scheduleChanged passes changes of a schedule's spec.
func scheduleChanged() predicate.Funcs {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		return e.ObjectOld.GetGeneration() != e.ObjectNew.GetGeneration() || isReplaced(e)
	}}
}

// childChanged passes changes of a child that matter to its schedule.
func childChanged(k kind) predicate.Funcs {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		return isReplaced(e) || k.childStatus(e.ObjectOld) != k.childStatus(e.ObjectNew) ||
			!equality.Semantic.DeepEqual(e.ObjectOld.GetLabels(), e.ObjectNew.GetLabels()) || deletionStarted(e.ObjectOld, e.ObjectNew)
	}}
}

// claimChanged passes changes that affect whether a snapshot of a claim can be taken, and by
// which schedules.
func claimChanged() predicate.Funcs {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, ok1 := e.ObjectOld.(*corev1.PersistentVolumeClaim)
		after, ok2 := e.ObjectNew.(*corev1.PersistentVolumeClaim)
		return ok1 && ok2 && (isReplaced(e) || before.Status.Phase != after.Status.Phase ||
			!equality.Semantic.DeepEqual(before.Labels, after.Labels) || deletionStarted(before, after))
	}}
}

// isReplaced reports whether the object was deleted and created again with the same name. A
// watch that was interrupted reports that as an update.
func isReplaced(e event.UpdateEvent) bool { return e.ObjectOld.GetUID() != e.ObjectNew.GetUID() }

func deletionStarted(before, after client.Object) bool {
	return before.GetDeletionTimestamp() == nil && after.GetDeletionTimestamp() != nil
}
