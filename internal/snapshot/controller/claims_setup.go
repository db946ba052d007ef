package controller

import (
	"context"
	"fmt"
	"maps"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// setUp adds the controller that frees claims. It looks at all of them at its start.
func (c *Claims) setUp(m ctrl.Manager, o *Options) (err error) {
	served := predicate.NewPredicateFuncs(func(claim client.Object) bool { return o.IsSelected(claim.GetNamespace()) })
	c.controller, err = ctrl.NewControllerManagedBy(m).
		Named("release-claim").
		For(&corev1.PersistentVolumeClaim{}, builder.WithPredicates(served, IsCreated())).
		Watches(&snapshotv1.VolumeSnapshot{}, handler.EnqueueRequestsFromMapFunc(sourceClaimRequests), builder.WithPredicates(noLongerNeedsClaim())).
		Watches(&corev1.PersistentVolumeClaim{}, recheckLater(), builder.WithPredicates(served)).
		WithOptions(o.controllerOptions()).
		Build(kube.DrainOnStop(c))
	return err
}

// WakeBy has objects wake the claims that they lead to, at any time after Setup.
func (c *Claims) WakeBy(from cache.Cache, kind client.Object, lead handler.MapFunc, when predicate.Predicate) error {
	if err := c.controller.Watch(source.Kind(from, kind, handler.EnqueueRequestsFromMapFunc(lead), when)); err != nil {
		return fmt.Errorf("watching %T, which need claims: %w", kind, err)
	}
	return nil
}

// recheckLater looks at a claim a while after the cache shows that it is kept: its
// snapshot may have been taken before, and who looked then saw a claim that nobody
// keeps. By then most are free. It does so too when a kept claim gets other labels:
// the group that it was kept for may select it no longer.
func recheckLater() handler.Funcs {
	return handler.Funcs{
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) {
			if hasFinalizer(e.ObjectNew) && (!hasFinalizer(e.ObjectOld) || !maps.Equal(e.ObjectOld.GetLabels(), e.ObjectNew.GetLabels())) {
				queue.AddAfter(RequestFor(e.ObjectNew.GetNamespace(), e.ObjectNew.GetName()), sidecarGracePeriod)
			}
		},
	}
}

// noLongerNeedsClaim lets through that a snapshot needs its claim no more.
func noLongerNeedsClaim() predicate.Funcs {
	needs := func(o client.Object) bool {
		s, ok := o.(*snapshotv1.VolumeSnapshot)
		return ok && needsClaim(s)
	}
	return predicate.Funcs{
		CreateFunc: func(event.CreateEvent) bool { return false },
		UpdateFunc: func(e event.UpdateEvent) bool { return needs(e.ObjectOld) && !needs(e.ObjectNew) },
	}
}
