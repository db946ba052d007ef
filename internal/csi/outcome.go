package csi

import (
	"errors"

	"google.golang.org/grpc/codes"
)

// Outcome tells what a failed driver call means for the next one. The zero
// value is the safe one.
type Outcome int

const (
	// OutcomeUnknown means that the call may still be running or may have done its
	// work: repeat the same request until the driver gives an answer.
	OutcomeUnknown Outcome = iota
	// Failed means that nothing was done: the request may be repeated, changed
	// or dropped.
	Failed
	// OutOfCapacity means that nothing was made because this place has no room: another
	// place may have some.
	OutOfCapacity
	// Infeasible means that nothing was done and that the same request will
	// hardly ever succeed: something must change first, so retry slowly.
	Infeasible
	// InUse means that nothing was done because something still uses the volume
	// or the snapshot: retry when that has let go of it.
	InUse
)

// Final reports whether the call surely neither runs in the background nor did
// its work. That holds for this call alone: an earlier one whose outcome is not
// known may have done the work all the same.
func (v Outcome) Final() bool { return v != OutcomeUnknown }

// String names the verdict for logs and events.
func (v Outcome) String() string {
	switch v {
	case Failed:
		return "refused"
	case OutOfCapacity:
		return "full"
	case Infeasible:
		return "infeasible"
	case InUse:
		return "in use"
	default:
		return "unsure"
	}
}

// OutcomeOf reads the verdict of an error that a [DriverOptions] returned, however
// often it was wrapped since. An error that did not come from a driver call
// proves nothing about the driver: it is [OutcomeUnknown].
func OutcomeOf(err error) Outcome {
	var called *Error
	if errors.As(err, &called) {
		return called.Outcome
	}
	return OutcomeUnknown
}

// Responded reports whether the driver has ended a call with an answer of its own,
// rather than by being slow, busy or out of reach: as far as it knows nothing of
// that call goes on. Whether the call did its work is another question; see
// [Outcome].
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

// Classify gives the verdict of a driver's answer code to a call. It is the whole
// rule, and pure. Codes follow the "Errors" table of each call in the CSI
// specification and its general "Error Scheme".
func Classify(method Method, code codes.Code) Outcome {
	switch code {
	case codes.OK, codes.Canceled, codes.DeadlineExceeded, codes.Unavailable, codes.Aborted:
		return OutcomeUnknown // OK is here because a success has no verdict, and OutcomeUnknown is the harmless one
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

// Calls that make something prove nothing by these codes. Internal and Unknown are
// what drivers answer when they fail on the way, after the storage may have done
// the work; AlreadyExists says that there is something under the name, which is
// derived from a UID and so hardly anybody else's.
func classifyInternal(method Method) Outcome {
	switch method {
	case CreateVolume, CreateSnapshot, CreateVolumeGroupSnapshot:
		return OutcomeUnknown
	default:
		return Failed
	}
}

// Only CreateVolume promises that nothing was left behind where there was no
// room ("CreateVolume Errors": Unable to provision in accessible_topology).
// Elsewhere drivers also use the code for their own throttling, after the work
// has begun.
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

// A size out of range or a volume that is gone stays so for an expansion until
// the claim changes; the other calls may find their node, source or volume at
// the next try.
func classifyNotFound(method Method) Outcome {
	if method == ControllerExpandVolume {
		return Infeasible
	}
	return Failed
}

// These calls define FailedPrecondition as "in use": expanding and deleting a
// published volume, publishing one that another node holds, deleting a
// snapshot, alone or with its group, that a volume still needs. For a group that
// is to be cut it says that these volumes cannot be cut together as they are.
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
