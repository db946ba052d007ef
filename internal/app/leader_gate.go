package app

import (
	"context"

	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/manager"
)

// gatedManager is a manager whose controllers start their informers and fill their
// queues at once, and start their workers when elected is closed.
//
// The manager below has no leader election of its own (see [term]), so it would
// start everything at once (TestARunnableWaitsForElection).
type gatedManager struct {
	ctrl.Manager
	elected chan struct{}
}

// Add lets r wait for the election, unless r needs none.
func (m *gatedManager) Add(r manager.Runnable) error {
	if l, ok := r.(manager.LeaderElectionRunnable); ok && !l.NeedLeaderElection() {
		return m.Manager.Add(r)
	}
	gated := &gatedRunnable{Runnable: r, elected: m.elected}
	if w, ok := r.(warmupRunnable); ok {
		return m.Manager.Add(&gatedWarmupRunnable{gatedRunnable: gated, warmupRunnable: w})
	}
	return m.Manager.Add(gated)
}

// gatedRunnable starts when elected is closed.
type gatedRunnable struct {
	manager.Runnable
	elected <-chan struct{}
}

// Start waits for the election and starts the runnable, unless ctx ends first.
func (g *gatedRunnable) Start(ctx context.Context) error {
	select {
	case <-ctx.Done():
	case <-g.elected:
		if ctx.Err() == nil {
			return g.Runnable.Start(ctx)
		}
	}
	return nil
}

// warmupRunnable is a runnable that can prepare before it is elected. It is the
// interface of controller-runtime, which does not export it. controller-runtime
// looks for it in what is added, so a gate that hid it would leave standbys cold
// (TestARunnableWaitsForElection).
type warmupRunnable interface {
	Warmup(ctx context.Context) error
}

type gatedWarmupRunnable struct {
	*gatedRunnable
	warmupRunnable
}
