package local

import (
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-io/holdfast/driver/local/disk"
	"github.com/holdfast-io/holdfast/driver/local/stage"
	"github.com/holdfast-io/holdfast/driver/local/volume"
)

var (
	// errBadToken reports a starting_token that no earlier response contained.
	errBadToken = errors.New("the starting token is not valid; start again with an empty one")
	// errNoStaging reports a NodePublishVolume call without a staging path.
	errNoStaging = errors.New("staging_target_path is missing; stage the volume first and name the path")
	// errWrongTopology reports a topology from which this driver's volumes are not
	// accessible.
	errWrongTopology = errors.New("not on this node")
	// errNotReady reports a driver that cannot work (CSI spec, Probe Errors).
	errNotReady = errors.New("the driver is not ready")
)

// errorCodes maps errors to gRPC codes, here and nowhere else. The first match counts.
var errorCodes = []struct {
	err  error
	code codes.Code
}{
	{volume.ErrOutcomeUnknown, codes.Unavailable},
	{volume.ErrSourceInOtherStorage, codes.ResourceExhausted},
	{volume.ErrOtherStorage, codes.FailedPrecondition}, // also ErrNotFound
	{disk.ErrThawed, codes.Aborted},                    // The next attempt freezes it itself.
	{volume.ErrInvalid, codes.InvalidArgument},
	{volume.ErrDamaged, codes.DataLoss},
	{volume.ErrOutOfRange, codes.OutOfRange},
	{volume.ErrOutOfCapacity, codes.ResourceExhausted},
	{errWrongTopology, codes.ResourceExhausted},
	{volume.ErrExists, codes.AlreadyExists},
	{stage.ErrConflictingUse, codes.AlreadyExists},
	{volume.ErrInUse, codes.FailedPrecondition},
	{volume.ErrNotAttached, codes.FailedPrecondition},
	{stage.ErrUnusable, codes.FailedPrecondition},
	{disk.ErrUnprivileged, codes.FailedPrecondition},
	{errNoStaging, codes.FailedPrecondition},
	{errNotReady, codes.FailedPrecondition},
	{volume.ErrPending, codes.Aborted},
	{errBadToken, codes.Aborted},
	{volume.ErrNotFound, codes.NotFound},
	{stage.ErrNotAtPath, codes.NotFound},
}

// code returns the gRPC code for err. It returns Internal for all other errors, mostly
// failed system calls.
func code(err error) codes.Code {
	for _, v := range errorCodes {
		if errors.Is(err, v.err) {
			return v.code
		}
	}
	return codes.Internal
}

// toStatus converts the error of a call. The server applies it once to every call.
func toStatus(err error) error {
	if err == nil {
		return nil
	}
	if s, ok := status.FromError(err); ok {
		return s.Err() // gRPC's own, such as Unimplemented
	}
	return status.Error(code(err), err.Error())
}

// invalid returns the error for a request that violates the CSI spec.
func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", volume.ErrInvalid, fmt.Sprintf(format, args...))
}
