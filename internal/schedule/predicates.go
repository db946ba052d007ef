package schedule

import (
	"context"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/api/v1alpha1"
)

// bySchedule is the index of snapshots by the UID of their schedule.
const bySchedule = "schedule.holdfast.io/uid"

func scheduleUID(o client.Object) []string {
	if uid := o.GetLabels()[uidLabel]; uid != "" {
		return []string{uid}
	}
	return nil
}

// requestForSnapshot maps a snapshot to its schedule.
func requestForSnapshot(_ context.Context, o client.Object) []reconcile.Request {
	name := o.GetLabels()[nameLabel]
	if name == "" {
		return nil
	}
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: o.GetNamespace(), Name: name}}}
}

// requestsForClaim maps a claim to the schedules that select it.
func (r *Reconciler) requestsForClaim(ctx context.Context, o client.Object) []reconcile.Request {
	if !r.options.isServed(o.GetNamespace()) {
		return nil
	}
	all := &v1alpha1.SnapshotScheduleList{}
	if err := r.client.List(ctx, all, client.InNamespace(o.GetNamespace())); err != nil {
		klog.FromContext(ctx).Error(err, "Could not list the schedules of a claim", "claim", klog.KObj(o))
		return nil
	}
	var requests []reconcile.Request
	for i := range all.Items {
		selector, err := metav1.LabelSelectorAsSelector(&all.Items[i].Spec.ClaimSelector)
		if err == nil && selector.Matches(labels.Set(o.GetLabels())) {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&all.Items[i])})
		}
	}
	return requests
}

// scheduleChanged passes changes of a schedule's spec.
func scheduleChanged() predicate.Funcs {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		return e.ObjectOld.GetGeneration() != e.ObjectNew.GetGeneration() || isReplaced(e)
	}}
}

// snapshotChanged passes changes of a snapshot that matter to its schedule.
func snapshotChanged() predicate.Funcs {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, ok1 := e.ObjectOld.(*snapshotv1.VolumeSnapshot)
		after, ok2 := e.ObjectNew.(*snapshotv1.VolumeSnapshot)
		return ok1 && ok2 && (isReplaced(e) || !equality.Semantic.DeepEqual(before.Status, after.Status) ||
			!equality.Semantic.DeepEqual(before.Labels, after.Labels) || deletionStarted(before, after))
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
