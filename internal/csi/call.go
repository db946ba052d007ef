package csi

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
)

// about names a call and what it is about. Calls about nothing in particular,
// such as listing, have no key and wait for none.
type about struct {
	method Method
	key    string
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
