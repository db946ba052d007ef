package csi

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
)

// operation is the method of a call and the key of the object that the call is
// about. Calls about no particular object, such as ListVolumes, have no key and
// wait for no other call.
type operation struct {
	method Method
	key    string
}

// send waits for the lock of the key and for a slot of the method's limiter, checks
// the precondition, sends the call with the timeout of d and wraps the error. The
// timeout starts when the call is sent, so that waiting does not use it up. A call
// that is cancelled before it was sent is still OutcomeUnknown, because the call
// that it waited for may be running.
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
	release, err := d.limiters.acquire(ctx, op.method, req)
	if err != nil {
		return none, d.fail(op.method, err)
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
	if reason := tooLarge(op.method, err); reason != "" {
		return none, d.invalidResponse(op.method, "", reason)
	}
	if err != nil {
		return none, d.fail(op.method, err)
	}
	return resp, nil
}

// invalidResponse is the error for a response that cannot be used.
func (d *Driver) invalidResponse(method Method, id, reason string) *Error {
	return d.fail(method, &InvalidResponse{ID: id, Reason: reason})
}
