package csi

import (
	"errors"

	"google.golang.org/grpc/codes"
)

// Outcome is what a failed call to the driver means for the next one. The zero
// value is the safe one.
type Outcome int

const (
	// OutcomeUnknown means that the call may be in progress or may have done its work:
	// repeat the same request until the driver gives a final response.
	OutcomeUnknown Outcome = iota
	// Failed means that the driver did nothing: the request may be repeated, changed
	// or dropped.
	Failed
	// OutOfCapacity means that the driver created nothing because the requested
	// topology has no room: another topology segment may have some.
	OutOfCapacity
	// Infeasible means that the driver did nothing and that the same request is
	// unlikely to succeed before something changes: retry slowly.
	Infeasible
	// InUse means that the driver did nothing because the volume or the snapshot is
	// still in use: retry when it is not.
	InUse
)

// Final reports whether it is certain that the call neither did its work nor
// continues in the background. That is true for this call alone: an earlier one
// whose outcome is unknown may still have done the work.
func (o Outcome) Final() bool { return o != OutcomeUnknown }

// String is the outcome for logs and events.
func (o Outcome) String() string {
	switch o {
	case Failed:
		return "failed"
	case OutOfCapacity:
		return "out of capacity"
	case Infeasible:
		return "infeasible"
	case InUse:
		return "in use"
	default:
		return "unknown"
	}
}

// OutcomeOf returns the outcome of an error of a [Driver], wrapped or not. Other
// errors say nothing about the driver: they are [OutcomeUnknown].
func OutcomeOf(err error) Outcome {
	var called *Error
	if errors.As(err, &called) {
		return called.Outcome
	}
	return OutcomeUnknown
}

// Responded reports whether the driver ended the call with a response of its own,
// and was not slow, busy or out of reach: as far as the driver knows, the call does
// not continue. It does not say whether the call did its work; see [Outcome].
func Responded(err error) bool {
	var called *Error
	if !errors.As(err, &called) {
		return false
	}
	switch called.Code {
	case codes.Internal, codes.Unknown, codes.AlreadyExists:
		return true
	default:
		return called.Outcome.Final()
	}
}

// Classify returns the outcome of a call that failed with a code. It has all the
// rules and no side effects. The codes follow the "Errors" table of each call in
// the CSI specification and its general "Error Scheme".
func Classify(method Method, code codes.Code) Outcome {
	switch code {
	case codes.OK, codes.Canceled, codes.DeadlineExceeded, codes.Unavailable, codes.Aborted:
		return OutcomeUnknown // OK too: a success has no outcome, and OutcomeUnknown is the safe one
	case codes.ResourceExhausted:
		return classifyResourceExhausted(method)
	case codes.InvalidArgument:
		return classifyInvalidArgument(method)
	case codes.OutOfRange, codes.NotFound:
		return classifyNotFound(method)
	case codes.FailedPrecondition:
		return classifyFailedPrecondition(method)
	case codes.Internal, codes.Unknown, codes.AlreadyExists:
		return classifyInternal(method)
	default:
		return Failed
	}
}

// classifyInternal is unknown for calls that create something. Drivers return
// Internal and Unknown for failures after the storage may have done the work.
// AlreadyExists means that an object with the name exists; the name is derived from
// a UID, so the object is most likely the caller's own.
func classifyInternal(method Method) Outcome {
	switch method {
	case CreateVolume, CreateSnapshot, CreateVolumeGroupSnapshot:
		return OutcomeUnknown
	default:
		return Failed
	}
}

// classifyResourceExhausted is final for CreateVolume only, which promises that
// nothing is left behind when there is no room ("CreateVolume Errors": Unable to
// provision in accessible_topology). For other calls, drivers also return the code
// when they throttle, after the work has begun.
func classifyResourceExhausted(method Method) Outcome {
	if method == CreateVolume {
		return OutOfCapacity
	}
	return OutcomeUnknown
}

func classifyInvalidArgument(method Method) Outcome {
	switch method {
	case CreateVolume, ControllerExpandVolume, ControllerModifyVolume:
		return Infeasible
	default:
		return Failed
	}
}

// classifyNotFound is infeasible for an expansion: a size out of range or a missing
// volume does not change until the claim does. Other calls may find their node,
// source or volume at the next attempt.
func classifyNotFound(method Method) Outcome {
	if method == ControllerExpandVolume {
		return Infeasible
	}
	return Failed
}

// classifyFailedPrecondition is in use for the calls whose specification says so:
// expanding or deleting a published volume, publishing one that is published on
// another node, and deleting a snapshot, alone or with its group, that a volume
// still needs. For the creation of a group it means that these volumes cannot be
// snapshotted together as they are.
func classifyFailedPrecondition(method Method) Outcome {
	switch method {
	case ControllerExpandVolume, ControllerPublishVolume, DeleteVolume, DeleteSnapshot, DeleteVolumeGroupSnapshot:
		return InUse
	case CreateVolumeGroupSnapshot:
		return Infeasible
	default:
		return Failed
	}
}
