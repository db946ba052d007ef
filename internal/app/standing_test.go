package app

import (
	"context"
	"testing"

	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/manager"
)

// added is a manager that keeps what is added.
type added struct {
	ctrl.Manager
	all []manager.Runnable
}

func (a *added) Add(r manager.Runnable) error { a.all = append(a.all, r); return nil }

// worker is a runnable that can warm up.
type worker struct{ warm, started chan struct{} }

func newWorker() *worker { return &worker{warm: make(chan struct{}), started: make(chan struct{})} }

func (w *worker) Warmup(context.Context) error { close(w.warm); return nil }
func (w *worker) Start(context.Context) error  { close(w.started); return nil }

type everywhere struct{ *worker }

func (everywhere) NeedLeaderElection() bool { return false }

func TestWhatNeedsElectionWarmsUpAndWaits(t *testing.T) {
	inner, w := &added{}, newWorker()
	s := &standing{Manager: inner, elected: make(chan struct{}), work: t.Context()}
	if err := s.Add(w); err != nil {
		t.Fatal(err)
	}
	warm, ok := inner.all[0].(warming)
	if !ok {
		t.Fatal("it cannot warm up any more")
	}
	if err := warm.Warmup(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-w.warm
	ended := make(chan error)
	go func() { ended <- inner.all[0].Start(t.Context()) }()
	select {
	case <-w.started:
		t.Error("it has started without election")
	case err := <-ended:
		t.Errorf("it has not waited: %v", err)
	default:
	}
	close(s.elected)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	<-w.started
}

func TestWhatIsStoppedDoesNotStartWhenItIsElected(t *testing.T) {
	inner, w := &added{}, newWorker()
	s := &standing{Manager: inner, elected: make(chan struct{}), work: t.Context()}
	if err := s.Add(w); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	close(s.elected)
	if err := inner.all[0].Start(ctx); err != nil {
		t.Error(err)
	}
	select {
	case <-w.started:
		t.Error("it has started")
	default:
	}
}

func TestWhatNeedsNoElectionIsAddedAsItIs(t *testing.T) {
	inner, w := &added{}, everywhere{newWorker()}
	s := &standing{Manager: inner, elected: make(chan struct{}), work: t.Context()}
	if err := s.Add(w); err != nil || inner.all[0] != manager.Runnable(w) {
		t.Errorf("got %v and %v", inner.all, err)
	}
}
