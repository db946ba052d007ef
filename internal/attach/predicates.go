package attach

import (
	"context"

	storagev1 "k8s.io/api/storage/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// isOurs reports whether a VolumeAttachment belongs to our driver.
func (r *Reconciler) isOurs(o client.Object) bool {
	a, ok := o.(*storagev1.VolumeAttachment)
	return ok && a.Spec.Attacher == r.options.Driver
}

// startsWork passes the events that start a queue's work. All other changes of
// a VolumeAttachment are this program's own writes.
func startsWork(detach bool) predicate.Funcs {
	return predicate.Funcs{
		CreateFunc: func(e event.CreateEvent) bool { return (e.Object.GetDeletionTimestamp() != nil) == detach },
		UpdateFunc: func(e event.UpdateEvent) bool {
			if detach {
				return e.ObjectOld.GetDeletionTimestamp() == nil && e.ObjectNew.GetDeletionTimestamp() != nil
			}
			return isAttached(e.ObjectOld) && !isAttached(e.ObjectNew) || e.ObjectOld.GetUID() != e.ObjectNew.GetUID()
		},
		DeleteFunc: func(event.DeleteEvent) bool { return false },
	}
}

func isAttached(o client.Object) bool {
	a, ok := o.(*storagev1.VolumeAttachment)
	return ok && a.Status.Attached
}

// createdOnly passes new objects. The fields of a PersistentVolume that an
// attachment may wait for are immutable.
func createdOnly() predicate.Funcs {
	return predicate.Funcs{
		UpdateFunc: func(event.UpdateEvent) bool { return false },
		DeleteFunc: func(event.DeleteEvent) bool { return false },
	}
}

// nodeIDChanged passes events that give a node an ID of our driver, or another
// one.
func (r *Reconciler) nodeIDChanged() predicate.Funcs {
	id := func(o client.Object) string {
		node, ok := o.(*storagev1.CSINode)
		if !ok {
			return ""
		}
		return nodeID(node, r.options.Driver)
	}
	return predicate.Funcs{
		CreateFunc: func(e event.CreateEvent) bool { return id(e.Object) != "" },
		UpdateFunc: func(e event.UpdateEvent) bool { return id(e.ObjectNew) != "" && id(e.ObjectNew) != id(e.ObjectOld) },
		DeleteFunc: func(event.DeleteEvent) bool { return false },
	}
}

// unattached maps an object to its VolumeAttachments that are not attached and
// not being deleted.
func (r *Reconciler) unattached(index string) handler.MapFunc {
	return func(ctx context.Context, o client.Object) []reconcile.Request {
		all, err := r.attachments(ctx, index, o.GetName())
		if err != nil {
			ctrl.LoggerFrom(ctx).Error(err, "Listing the VolumeAttachments of an object failed", "name", o.GetName())
			return nil
		}
		var waiting []reconcile.Request
		for i := range all {
			if !all[i].Status.Attached && all[i].DeletionTimestamp == nil {
				waiting = append(waiting, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&all[i])})
			}
		}
		return waiting
	}
}
