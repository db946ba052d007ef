package csitest

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-io/holdfast/internal/csi"
)

// Hooks run for every call. Before runs before the work and can fail the call.
// After runs after the work, gets the response and the error, and returns those
// that the caller gets; resp is a copy, or nil if there is an error. Both may
// block.
type Hooks struct {
	Before func(ctx context.Context, method csi.Method, req any) error
	After  func(ctx context.Context, method csi.Method, req, resp any, err error) (any, error)
}

// SetHooks replaces the hooks; the zero value removes them.
func (d *Driver) SetHooks(h Hooks) { d.hooks.Store(&h) }

// SetLatency delays the work of every call. The work is done even if the caller's
// deadline passes meanwhile, but not if the driver crashes.
func (d *Driver) SetLatency(pause time.Duration) { d.latency.Store(int64(pause)) }

// FailNext fails the next call of the method before its work. Several faults of one
// method affect one call each, in order.
func (d *Driver) FailNext(method csi.Method, code codes.Code, message string) {
	d.faults.add(method, fault{before: func(<-chan struct{}) error { return status.Error(code, message) }})
}

// LoseResponse lets the next call of the method do its work and then fail with
// DeadlineExceeded, as for a caller whose deadline passes just before the response.
func (d *Driver) LoseResponse(method csi.Method) {
	d.faults.add(method, fault{after: func(error) error {
		return status.Error(codes.DeadlineExceeded, "the response was lost")
	}})
}

// Blocked is a call that [Driver.Block] blocks.
type Blocked struct {
	arrived chan struct{}
	release chan struct{}
	once    sync.Once
}

// Arrived is closed when the driver gets the call.
func (b *Blocked) Arrived() <-chan struct{} { return b.arrived }

// Release lets the call do its work. It may be called more than once.
func (b *Blocked) Release() { b.once.Do(func() { close(b.release) }) }

// Block blocks the next call of the method before its work, until it is released or
// the driver crashes. The caller's deadline does not end it: the work is done after
// the release, whether or not the caller still waits.
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

// fault changes one call.
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
