package kube

import (
	"context"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

func TestARunningReconciliationOutlivesItsController(t *testing.T) {
	drain, endDrain := context.WithCancel(t.Context())
	ctx, stop := context.WithCancel(WithDrainContext(t.Context(), drain))
	calls := 0
	r := DrainOnStop(reconcile.TypedFunc[string](func(ctx context.Context, _ string) (reconcile.Result, error) {
		calls++
		stop()
		if err := ctx.Err(); err != nil {
			t.Errorf("the reconciliation was cancelled with its controller: %v", err)
		}
		endDrain()
		<-ctx.Done()
		return reconcile.Result{}, ctx.Err()
	}))
	if _, err := r.Reconcile(ctx, "a"); err == nil {
		t.Error("the reconciliation was not cancelled")
	}
	if _, err := r.Reconcile(ctx, "b"); err == nil || calls != 1 {
		t.Errorf("a reconciliation started after the controller was stopped: %d calls, %v", calls, err)
	}
}

func TestWithoutADrainContextAReconciliationEndsWithItsController(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	stop()
	_, err := DrainOnStop(reconcile.TypedFunc[string](func(ctx context.Context, _ string) (reconcile.Result, error) {
		return reconcile.Result{}, ctx.Err()
	})).Reconcile(ctx, "a")
	if err == nil {
		t.Error("the reconciliation was not cancelled with its controller")
	}
}
