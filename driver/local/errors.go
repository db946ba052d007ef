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
	// errBadToken is a starting_token that no earlier answer had.
	errBadToken = errors.New("the starting token is not valid; start again with an empty one")
	// errNoStaging is a call to NodePublishVolume before, or without, NodeStageVolume.
	errNoStaging = errors.New("staging_target_path is missing; stage the volume first and name the path")
	// errWrongTopology is a place that this driver's volumes cannot be used from.
	errWrongTopology = errors.New("not on this node")
	// errNotReady is a driver that cannot work (CSI spec, Probe Errors).
	errNotReady = errors.New("the driver is not ready")
)

// errorCodes is the one place where an error becomes a gRPC code. The first match counts.
var errorCodes = []struct {
	err  error
	code codes.Code
}{
	{volume.ErrOutcomeUnknown, codes.Unavailable},
	{volume.ErrSourceInOtherStorage, codes.ResourceExhausted},
	{volume.ErrOtherStorage, codes.FailedPrecondition}, // also ErrNotFound
	{disk.ErrThawed, codes.Aborted},                    // The next try freezes it itself.
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

// code returns the gRPC code for err. Internal is what the driver has no name
// for: mostly the machine refusing something.
func code(err error) codes.Code {
	for _, v := range errorCodes {
		if errors.Is(err, v.err) {
			return v.code
		}
	}
	return codes.Internal
}

// toStatus is applied to every call's error, once, where the server answers.
func toStatus(err error) error {
	if err == nil {
		return nil
	}
	if s, ok := status.FromError(err); ok {
		return s.Err() // gRPC's own, such as Unimplemented
	}
	return status.Error(code(err), err.Error())
}

// invalid is a request that breaks the protocol.
func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", volume.ErrInvalid, fmt.Sprintf(format, args...))
}
