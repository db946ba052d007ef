package app

import (
	"context"
	"testing"

	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/manager"
)

// fakeManager records the runnables that are added.
type fakeManager struct {
	ctrl.Manager
	added []manager.Runnable
}

func (m *fakeManager) Add(r manager.Runnable) error { m.added = append(m.added, r); return nil }

// worker is a runnable with a warmup.
type worker struct{ warm, started chan struct{} }

func newWorker() *worker { return &worker{warm: make(chan struct{}), started: make(chan struct{})} }

func (w *worker) Warmup(context.Context) error { close(w.warm); return nil }
func (w *worker) Start(context.Context) error  { close(w.started); return nil }

// ungatedWorker needs no leader election.
type ungatedWorker struct{ *worker }

func (ungatedWorker) NeedLeaderElection() bool { return false }

func TestARunnableWaitsForElection(t *testing.T) {
	inner, w := &fakeManager{}, newWorker()
	s := &gatedManager{Manager: inner, elected: make(chan struct{})}
	if err := s.Add(w); err != nil {
		t.Fatal(err)
	}
	warm, ok := inner.added[0].(warmupRunnable)
	if !ok {
		t.Fatal("the gate hides the warmup")
	}
	if err := warm.Warmup(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-w.warm
	ended := make(chan error)
	go func() { ended <- inner.added[0].Start(t.Context()) }()
	select {
	case <-w.started:
		t.Error("the runnable started before the election")
	case err := <-ended:
		t.Errorf("the gate did not wait: %v", err)
	default:
	}
	close(s.elected)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	<-w.started
}

func TestAStoppedRunnableDoesNotStartWhenElected(t *testing.T) {
	inner, w := &fakeManager{}, newWorker()
	s := &gatedManager{Manager: inner, elected: make(chan struct{})}
	if err := s.Add(w); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	close(s.elected)
	if err := inner.added[0].Start(ctx); err != nil {
		t.Error(err)
	}
	select {
	case <-w.started:
		t.Error("the runnable started")
	default:
	}
}

func TestARunnableWithoutElectionIsNotGated(t *testing.T) {
	inner, w := &fakeManager{}, ungatedWorker{newWorker()}
	s := &gatedManager{Manager: inner, elected: make(chan struct{})}
	if err := s.Add(w); err != nil || inner.added[0] != manager.Runnable(w) {
		t.Errorf("got %v and %v", inner.added, err)
	}
}
