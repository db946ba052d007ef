package csi

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
)

// operation names a call and what it is about. Calls about nothing in particular,
// such as listing, have no key and wait for none.
type operation struct {
	method Method
	key    string
}

// send waits for the key's turn and for the driver's pace, gives the call its time and wraps what went
// wrong. The time starts when the call is sent: waiting must not eat it up. A call that is given up before it
// was sent is still OutcomeUnknown, because the one it waited for may be running.
func send[Request, Response any](ctx context.Context, d *Driver, op operation,
	call func(context.Context, Request, ...grpc.CallOption) (Response, error), req Request,
) (Response, error) {
	var none Response
	if op.key != "" {
		release, err := d.keyMutex.Lock(ctx, op.key)
		if err != nil {
			return none, d.fail(op.method, fmt.Errorf("waiting for another call about %s: %w", op.key, err))
		}
		defer release()
	}
	release, err := d.limiters.acquire(ctx, op.method)
	if err != nil {
		return none, d.fail(op.method, fmt.Errorf("waiting until the driver has fewer calls to answer: %w", err))
	}
	if d.precondition != nil {
		if err := d.precondition(ctx); err != nil {
			release(errNotSent)
			return none, d.fail(op.method, fmt.Errorf("not sent: %w", err))
		}
	}
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	resp, err := call(ctx, req)
	release(err)
	if err != nil {
		return none, d.fail(op.method, err)
	}
	return resp, nil
}

// invalidResponse turns a reason for which an answer cannot be used into an error.
func (d *Driver) invalidResponse(method Method, id, reason string) *Error {
	return d.fail(method, &InvalidResponse{ID: id, Reason: reason})
}
