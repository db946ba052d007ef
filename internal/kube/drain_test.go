package kube

import (
	"context"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

func TestWorkGoesOnWhenItsControllerIsStopped(t *testing.T) {
	work, endWork := context.WithCancel(t.Context())
	ctx, stop := context.WithCancel(WithDrainContext(t.Context(), work))
	calls := 0
	r := DrainOnStop(reconcile.TypedFunc[string](func(ctx context.Context, _ string) (reconcile.Result, error) {
		calls++
		stop()
		if err := ctx.Err(); err != nil {
			t.Errorf("the work ended with its controller: %v", err)
		}
		endWork()
		<-ctx.Done()
		return reconcile.Result{}, ctx.Err()
	}))
	if _, err := r.Reconcile(ctx, "a"); err == nil {
		t.Error("the work did not end")
	}
	if _, err := r.Reconcile(ctx, "b"); err == nil || calls != 1 {
		t.Errorf("something was begun after the controller was stopped: %d calls, %v", calls, err)
	}
}

func TestWithoutAContextForWorkThatOfTheControllerCounts(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	stop()
	_, err := DrainOnStop(reconcile.TypedFunc[string](func(ctx context.Context, _ string) (reconcile.Result, error) {
		return reconcile.Result{}, ctx.Err()
	})).Reconcile(ctx, "a")
	if err == nil {
		t.Error("the work does not know that its controller is stopped")
	}
}
