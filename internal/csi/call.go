package csi

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
)

// about names a call and what it is about. Calls about nothing in particular,
// such as listing, have no key and wait for none.
type about struct {
	method Method
	key    string
}

// A Precondition tells whether a call is still wanted: nil if it is. A call may
// wait for minutes, for other calls about its volume and for a slow driver, and
// what was true when it was decided on may have changed since. So a precondition
// reads from the API server, not from a cache. It may also complete the request
// that it is about, with what it has read.
type Precondition func(context.Context) error

// ErrPreconditionFailed is what a [Precondition] returns, wrapped or not, if the call is
// not wanted any more.
var ErrPreconditionFailed = errors.New("it is not wanted any more")

// WithPrecondition returns a view of the same driver whose calls have a precondition. It
// is checked when a call has its turn and its slot, right before it is sent. If it
// fails the call is not sent, and its error wraps the precondition's. Whatever
// cannot be taken back, such as deleting a volume, is called so.
func (d *Driver) WithPrecondition(still Precondition) *Driver {
	return &Driver{link: d.link, timeout: d.timeout, precondition: still}
}

// send waits for the key's turn and for the driver's pace, gives the call its time and wraps what went
// wrong. The time starts when the call is sent: waiting must not eat it up. A call that is given up before it
// was sent is still OutcomeUnknown, because the one it waited for may be running.
func send[Request, Answer any](ctx context.Context, d *Driver, a about,
	call func(context.Context, Request, ...grpc.CallOption) (Answer, error), req Request,
) (Answer, error) {
	var none Answer
	if a.key != "" {
		release, err := d.keyMutex.Lock(ctx, a.key)
		if err != nil {
			return none, d.fail(a.method, fmt.Errorf("waiting for another call about %s: %w", a.key, err))
		}
		defer release()
	}
	ended, err := d.paces.acquire(ctx, a.method)
	if err != nil {
		return none, d.fail(a.method, fmt.Errorf("waiting until the driver has fewer calls to answer: %w", err))
	}
	if d.precondition != nil {
		if err := d.precondition(ctx); err != nil {
			ended(errNotSent)
			return none, d.fail(a.method, fmt.Errorf("not sent: %w", err))
		}
	}
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	answer, err := call(ctx, req)
	ended(err)
	if err != nil {
		return none, d.fail(a.method, err)
	}
	return answer, nil
}

// bad turns a reason for which an answer cannot be used into an error.
func (d *Driver) bad(method Method, id, reason string) *Error {
	return d.fail(method, &InvalidResponse{ID: id, Reason: reason})
}
