package kube

import (
	"context"

	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

type drainKey struct{}

// WithDrainContext returns a context for controllers whose reconcilers are wrapped by
// [DrainOnStop]. When ctx ends, they start no reconciliation. Running reconciliations
// go on until drain ends.
func WithDrainContext(ctx, drain context.Context) context.Context {
	return context.WithValue(ctx, drainKey{}, drain)
}

// DrainOnStop lets running reconciliations finish when their controller is stopped (see
// [WithDrainContext]). controller-runtime cancels them at once. The next leader would
// then have to repeat the call to create a volume that the driver has almost created.
func DrainOnStop[R comparable](r reconcile.TypedReconciler[R]) reconcile.TypedReconciler[R] {
	return reconcile.TypedFunc[R](func(ctx context.Context, request R) (reconcile.Result, error) {
		drain, ok := ctx.Value(drainKey{}).(context.Context)
		if !ok {
			return r.Reconcile(ctx, request)
		}
		if err := ctx.Err(); err != nil {
			return reconcile.Result{}, err
		}
		ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
		defer cancel(nil)
		defer context.AfterFunc(drain, func() { cancel(context.Cause(drain)) })()
		return r.Reconcile(ctx, request)
	})
}
