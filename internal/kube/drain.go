package kube

import (
	"context"

	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

type drainKey struct{}

// WithDrainContext gives the controllers that are started with ctx another context to
// work under. When ctx ends they begin nothing new, and what they have begun
// goes on until work ends.
func WithDrainContext(ctx, work context.Context) context.Context {
	return context.WithValue(ctx, drainKey{}, work)
}

// DrainOnStop lets a reconciler end what it has begun when its controller is stopped
// (see WithWork). Without it a volume that the driver has almost made is asked
// for again by the next leader.
func DrainOnStop[R comparable](r reconcile.TypedReconciler[R]) reconcile.TypedReconciler[R] {
	return reconcile.TypedFunc[R](func(ctx context.Context, request R) (reconcile.Result, error) {
		work, ok := ctx.Value(drainKey{}).(context.Context)
		if !ok {
			return r.Reconcile(ctx, request)
		}
		if err := ctx.Err(); err != nil {
			return reconcile.Result{}, err
		}
		ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
		defer cancel(nil)
		defer context.AfterFunc(work, func() { cancel(context.Cause(work)) })()
		return r.Reconcile(ctx, request)
	})
}
