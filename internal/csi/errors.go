package csi

import (
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Error is a failed call to the driver. Every typed call returns its failures
// as this type; errors.As and status.FromError find what is inside.
type Error struct {
	Method  Method
	Driver  string     // name of the driver, or its address as long as the name is not known
	Code    codes.Code // answer of the driver; OK if it answered with something that cannot be true
	Outcome Outcome
	cause   error
}

// Error reads "driver NAME: METHOD: CODE: what the driver said".
func (e *Error) Error() string {
	if s, ok := e.cause.(interface{ GRPCStatus() *status.Status }); ok {
		return fmt.Sprintf("driver %s: %s: %s: %s", e.Driver, e.Method, e.Code, s.GRPCStatus().Message())
	}
	return fmt.Sprintf("driver %s: %s: %v", e.Driver, e.Method, e.cause)
}

// Unwrap returns the gRPC status, the [InvalidResponse], or the reason for which the
// call was never sent.
func (e *Error) Unwrap() error { return e.cause }

// InvalidResponse says that the driver reported success but its answer breaks the
// CSI specification or does not match the request. Whatever it made exists:
// the caller can delete it by ID, and must not use it.
type InvalidResponse struct {
	ID     string // of the volume, snapshot or group in the answer; empty if the answer has none
	Reason string // for the person who must act

	MemberIDs []string // of the snapshots in a group: deleting it asks for them
}

func (b *InvalidResponse) Error() string {
	if b.ID == "" {
		return "the driver's answer cannot be used: " + b.Reason
	}
	return fmt.Sprintf("the driver's answer about %q cannot be used: %s", b.ID, b.Reason)
}

// fail wraps what went wrong in a call. Only a status is an answer of the
// driver; anything else happened on the way to it.
func (d *Driver) fail(method Method, cause error) *Error {
	e := &Error{Method: method, Driver: d.displayName(), cause: cause}
	var bad *InvalidResponse
	if errors.As(cause, &bad) {
		return e // OK and OutcomeUnknown: it did something, and we do not know what
	}
	if resp, ok := status.FromError(cause); ok {
		e.Code, e.Outcome = resp.Code(), Classify(method, resp.Code())
		return e
	}
	e.Code = status.FromContextError(cause).Code()
	return e
}
