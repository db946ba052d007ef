package app

import (
	"context"

	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// standing is a manager whose controllers fill their caches and queues at once
// and begin to work when they are elected.
//
// controller-runtime's own election is not used: it returns while workers still
// run when the Lease is lost, because it counts on the process to end.
type standing struct {
	ctrl.Manager
	elected chan struct{}
	work    context.Context //nolint:containedctx // It is handed on to what is added later.
}

// Elected is closed when the controllers may work.
func (s *standing) Elected() <-chan struct{} { return s.elected }

// Add has whatever may only run on the leader wait until this process is it.
func (s *standing) Add(r manager.Runnable) error {
	if l, ok := r.(manager.LeaderElectionRunnable); ok && !l.NeedLeaderElection() {
		return s.Manager.Add(r)
	}
	gated := &gated{Runnable: r, elected: s.elected, work: s.work}
	if w, ok := r.(warming); ok {
		return s.Manager.Add(&gatedAndWarm{gated: gated, warming: w})
	}
	return s.Manager.Add(gated)
}

// gated starts when this process is elected.
type gated struct {
	manager.Runnable
	elected <-chan struct{}
	work    context.Context //nolint:containedctx // See standing.
}

// Start waits and starts, unless ctx ends before.
func (g *gated) Start(ctx context.Context) error {
	select {
	case <-ctx.Done():
	case <-g.elected:
		if ctx.Err() == nil {
			return g.Runnable.Start(kube.WithDrainContext(ctx, g.work))
		}
	}
	return nil
}

// warming is what a controller can do before it may work.
type warming interface {
	Warmup(ctx context.Context) error
}

type gatedAndWarm struct {
	*gated
	warming
}
