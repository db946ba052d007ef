package runtimetest

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/holdfast-io/holdfast/internal/runtime"
)

func TestFake(t *testing.T) {
	t.Parallel()
	Run(t, func(t *testing.T) Node { return fakeNode{t, NewFake(t.TempDir())} })
}

// A fakeNode is a Fake as the contract wants it.
type fakeNode struct {
	t *testing.T
	*Fake
}

func must[T any](t *testing.T, value T, err error) T {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
	return value
}

func (n fakeNode) Start(pod, name string) runtime.Container {
	c, err := n.Fake.Start(pod, name)
	return must(n.t, c, err)
}

func (n fakeNode) Stop(c runtime.Container) { must(n.t, 0, n.Fake.Stop(c)) }

func (n fakeNode) Replace(c runtime.Container) {
	_, err := n.Fake.Replace(c)
	must(n.t, 0, err)
}

func (n fakeNode) IsFrozen(c runtime.Container) bool {
	frozen, err := n.Fake.IsFrozen(c)
	return must(n.t, frozen, err)
}

func (n fakeNode) Left() []string {
	left, err := n.Fake.Left()
	return must(n.t, left, err)
}

// inDump runs what once in the next dump of a container.
func (n fakeNode) inDump(c runtime.Container, what func(context.Context) error) {
	var once sync.Once
	n.SetHook(func(ctx context.Context, call Call) (err error) {
		if call.Point == Dumping && call.Container.ID == c.ID {
			once.Do(func() { err = what(ctx) })
		}
		return err
	})
}

func (n fakeNode) FailDump(c runtime.Container) {
	n.inDump(c, func(context.Context) error { return errors.New("the disk has a bad sector") })
}

func (n fakeNode) HoldDump(c runtime.Container) (<-chan struct{}, func()) {
	started, released := make(chan struct{}), make(chan struct{})
	n.inDump(c, func(ctx context.Context) error {
		close(started)
		select {
		case <-released:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	return started, sync.OnceFunc(func() { close(released) })
}

func (n fakeNode) ReplaceInDump(c runtime.Container) {
	n.inDump(c, func(context.Context) error { n.Replace(c); return nil })
}

func (n fakeNode) Die(at Point, id string, containers ...runtime.Container) {
	last := containers[len(containers)-1]
	n.SetHook(func(_ context.Context, call Call) error {
		if call.Method == "Checkpoint" && call.Point == at && (at != Dumping || call.Container == last) {
			return ErrDied
		}
		return nil
	})
	defer n.SetHook(nil)
	if _, err := n.Engine().Checkpoint(n.t.Context(), id, containers, runtime.Options{}); !errors.Is(err, ErrDied) {
		n.t.Errorf("Checkpoint() = %v, want %v", err, ErrDied)
	}
}
