package sidecar

import (
	"maps"

	"k8s.io/apimachinery/pkg/api/equality"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
)

// onlyOurs passes the contents of our driver and node.
func (r *Reconciler) onlyOurs() predicate.Funcs {
	return predicate.NewPredicateFuncs(func(o client.Object) bool {
		c := r.kind.Read(o)
		return r.options.isOurs(&c)
	})
}

// onlyQueue passes the contents that belong to a queue in their present state.
func (r *Reconciler) onlyQueue(deletions bool) predicate.Funcs {
	return predicate.NewPredicateFuncs(func(o client.Object) bool {
		return r.canDelete(&state{Content: r.kind.Read(o)}) == deletions
	})
}

// onlyExternalChanges drops the changes that the sidecar makes itself.
func (r *Reconciler) onlyExternalChanges() predicate.Funcs {
	return predicate.Funcs{
		UpdateFunc: func(e event.UpdateEvent) bool { return r.hasExternalChange(e.ObjectOld, e.ObjectNew) },
		DeleteFunc: func(event.DeleteEvent) bool { return false },
	}
}

func (r *Reconciler) hasExternalChange(before, now client.Object) bool {
	a, b := r.kind.Read(before), r.kind.Read(now)
	return before.GetResourceVersion() == now.GetResourceVersion() || // resync
		before.GetGeneration() != now.GetGeneration() || // The spec changed, or the deletion started.
		(before.GetDeletionTimestamp() == nil) != (now.GetDeletionTimestamp() == nil) ||
		a.Ready && !b.Ready || a.GroupHandle != b.GroupHandle || a.Handle != "" && b.Handle == "" ||
		!equality.Semantic.DeepEqual(r.externalAnnotations(before), r.externalAnnotations(now))
}

// externalAnnotations returns the annotations that the sidecar does not write.
func (r *Reconciler) externalAnnotations(o client.Object) map[string]string {
	all := maps.Clone(o.GetAnnotations())
	delete(all, r.keys.BeingCreated)
	delete(all, requestAnnotation)
	delete(all, rejectedSinceAnnotation)
	return all
}
