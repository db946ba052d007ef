package csitest

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-io/holdfast/internal/csi"
)

// Hooks see every call. Before runs before the work and can refuse it. After
// runs after the work, gets what the caller would get and decides what it gets
// instead; resp is nil beside an error and is its own to change otherwise.
// Either may take as long as it likes.
type Hooks struct {
	Before func(ctx context.Context, method csi.Method, req any) error
	After  func(ctx context.Context, method csi.Method, req, resp any, err error) (any, error)
}

// SetHooks replaces the hooks; the zero value removes them.
func (d *Driver) SetHooks(h Hooks) { d.hooks.Store(&h) }

// SetLatency lets every call wait before its work. The work is done even if
// the caller gives up meanwhile, but not if the driver crashes.
func (d *Driver) SetLatency(pause time.Duration) { d.latency.Store(int64(pause)) }

// FailNext lets the next call of the method fail without any work. Several
// faults of one method strike one call each, in the order in which they were
// asked for.
func (d *Driver) FailNext(method csi.Method, code codes.Code, message string) {
	d.faults.add(method, fault{before: func(<-chan struct{}) error { return status.Error(code, message) }})
}

// LoseResponse lets the next call of the method do its work and then fail with
// DeadlineExceeded: what a caller sees whose patience ends just before the
// answer.
func (d *Driver) LoseResponse(method csi.Method) {
	d.faults.add(method, fault{after: func(error) error {
		return status.Error(codes.DeadlineExceeded, "the answer was lost")
	}})
}

// Blocked is a call that a test holds.
type Blocked struct {
	arrived chan struct{}
	release chan struct{}
	once    sync.Once
}

// Arrived is closed when the call is there.
func (b *Blocked) Arrived() <-chan struct{} { return b.arrived }

// Release lets the call do its work. It may be called more than once.
func (b *Blocked) Release() { b.once.Do(func() { close(b.release) }) }

// Block holds the next call of the method before its work until it is released
// or the driver crashes. The caller's deadline does not end it: the work is
// done when the call is released, whether or not anyone still waits.
func (d *Driver) Block(method csi.Method) *Blocked {
	b := &Blocked{arrived: make(chan struct{}), release: make(chan struct{})}
	d.faults.add(method, fault{before: func(dead <-chan struct{}) error {
		close(b.arrived)
		select {
		case <-b.release:
			return nil
		case <-dead:
			return errCrashed()
		}
	}})
	return b
}

// fault strikes one call.
type fault struct {
	before func(dead <-chan struct{}) error
	after  func(error) error
}

func (f fault) runBefore(dead <-chan struct{}) error {
	if f.before == nil {
		return nil
	}
	return f.before(dead)
}

func (f fault) runAfter(err error) error {
	if f.after == nil {
		return err
	}
	return f.after(err)
}

type faults struct {
	mu     sync.Mutex
	queued map[csi.Method][]fault
}

func (f *faults) add(method csi.Method, one fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.queued[method] = append(f.queued[method], one)
}

func (f *faults) next(method csi.Method) fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	waiting := f.queued[method]
	if len(waiting) == 0 {
		return fault{}
	}
	f.queued[method] = waiting[1:]
	return waiting[0]
}
