package csi

import (
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// Error is a failed call to the driver. All calls of [Driver] and [ConditionalDriver]
// return it; errors.As and status.FromError find the cause in it.
type Error struct {
	Method  Method
	Driver  string     // name of the driver, or its address while the name is unknown
	Code    codes.Code // of the response; OK if the driver succeeded with an invalid response
	Outcome Outcome
	cause   error
}

// CodeOf returns the code of the driver's response, or Unknown if the error is not from the
// driver.
func CodeOf(err error) codes.Code {
	var called *Error
	if errors.As(err, &called) {
		return called.Code
	}
	return codes.Unknown
}

// Error has the form "driver NAME: METHOD: CODE: MESSAGE".
func (e *Error) Error() string {
	if s, ok := e.cause.(interface{ GRPCStatus() *status.Status }); ok {
		return fmt.Sprintf("driver %s: %s: %s: %s", e.Driver, e.Method, e.Code, s.GRPCStatus().Message())
	}
	return fmt.Sprintf("driver %s: %s: %v", e.Driver, e.Method, e.cause)
}

// Unwrap returns the gRPC status, the [InvalidResponse], or the reason why the call
// was not sent.
func (e *Error) Unwrap() error { return e.cause }

// InvalidResponse means that the driver reported success with a response that violates
// the CSI specification or does not match the request. The object that it created
// exists: the caller can delete it by ID, and must not use it.
type InvalidResponse struct {
	ID     string // of the volume, snapshot or group in the response; may be empty
	Reason string // for people

	MemberIDs []string // of the snapshots in a group; DeleteVolumeGroupSnapshot needs them
}

func (b *InvalidResponse) Error() string {
	text := "the driver's response cannot be used: " + b.Reason
	if b.ID != "" {
		text = fmt.Sprintf("the driver's response about %q cannot be used: %s", b.ID, b.Reason)
	}
	return kube.Truncate(text, maxMessageBytes) // The driver's ids may have any length.
}

// fail wraps the error of a call. Only a gRPC status is a response of the driver; any
// other error happened before the call reached it.
func (d *Driver) fail(method Method, cause error) *Error {
	e := &Error{Method: method, Driver: d.displayName(), cause: cause}
	var bad *InvalidResponse
	if errors.As(cause, &bad) {
		return e // OK and OutcomeUnknown: the driver did something, and nobody knows what
	}
	if resp, ok := status.FromError(cause); ok {
		e.Code, e.Outcome = resp.Code(), Classify(method, resp.Code())
		return e
	}
	e.Code = status.FromContextError(cause).Code()
	return e
}
