package claimprotection

import (
	"context"
	"fmt"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// SetUp adds the controller to a manager, for the claims of the selected namespaces.
// It reconciles all of them once at its start. What ends the need of a claim is added
// with WakeBy.
func (c *Controller) SetUp(m ctrl.Manager, isSelected func(namespace string) bool, o controller.Options) (err error) {
	selected := predicate.NewPredicateFuncs(func(claim client.Object) bool { return isSelected(claim.GetNamespace()) })
	created := predicate.Funcs{
		UpdateFunc: func(event.UpdateEvent) bool { return false },
		DeleteFunc: func(event.DeleteEvent) bool { return false },
	}
	c.controller, err = ctrl.NewControllerManagedBy(m).
		Named("claim-protection").
		For(&corev1.PersistentVolumeClaim{}, builder.WithPredicates(selected, created)).
		Watches(&corev1.PersistentVolumeClaim{}, recheckLater(), builder.WithPredicates(selected)).
		WithOptions(o).
		Build(kube.DrainOnStop(c))
	return err
}

// WakeBy makes events of objects wake the claims that lead returns. It can be called
// at any time after SetUp: the CRDs of group snapshots may be installed later.
func (c *Controller) WakeBy(from cache.Cache, object client.Object, lead handler.MapFunc, when predicate.Predicate) error {
	if err := c.controller.Watch(source.Kind(from, object, handler.EnqueueRequestsFromMapFunc(lead), when)); err != nil {
		return fmt.Errorf("watching %T, which need claims: %w", object, err)
	}
	return nil
}

// recheckDelay is how long after its finalizer appears in the cache a claim is
// reconciled. Most snapshots are taken by then.
const recheckDelay = time.Second

// recheckLater reconciles a claim a while after the cache shows our finalizer on it.
// Its snapshot may have been taken before that: the event that woke the claim then
// found it without a finalizer. It does the same when a protected claim is deleted, to
// report what it waits for, and when its labels change, because the group snapshot that it
// is protected for may not select it any more.
func recheckLater() handler.Funcs {
	return handler.Funcs{
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) {
			isDeleted := e.ObjectOld.GetDeletionTimestamp() == nil && e.ObjectNew.GetDeletionTimestamp() != nil
			if hasFinalizer(e.ObjectNew) && (!hasFinalizer(e.ObjectOld) || isDeleted || !maps.Equal(e.ObjectOld.GetLabels(), e.ObjectNew.GetLabels())) {
				queue.AddAfter(reconcile.Request{NamespacedName: client.ObjectKeyFromObject(e.ObjectNew)}, recheckDelay)
			}
		},
	}
}
