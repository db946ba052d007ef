package sidecar

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// byClass is the index, by class, of contents that have no snapshot yet.
const byClass = "waits-for-class"

func (r *Reconciler) indexByClass(ctx context.Context, m ctrl.Manager) error {
	err := m.GetFieldIndexer().IndexField(ctx, r.kind.New(), byClass, func(o client.Object) []string {
		c := r.kind.Read(o)
		if c.Driver != r.options.Driver || c.Class == "" || c.handle() != "" {
			return nil
		}
		return []string{c.Class}
	})
	if err != nil {
		return fmt.Errorf("indexing contents by class: %w", err)
	}
	return nil
}

// contentsOfClass maps a class to the contents that may be waiting for it.
func (r *Reconciler) contentsOfClass(ctx context.Context, class client.Object) []reconcile.Request {
	list := r.kind.NewList()
	if err := r.client.List(ctx, list, client.MatchingFields{byClass: class.GetName()}); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Could not list the contents of a class", "class", class.GetName())
		return nil
	}
	var waiting []reconcile.Request
	_ = meta.EachListItem(list, func(o runtime.Object) error {
		waiting = append(waiting, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(o.(client.Object))}) //nolint:forcetypeassert // The list has objects of the kind.
		return nil
	})
	return waiting
}
