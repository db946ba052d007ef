package csi

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

type classification struct {
	method Method
	code   codes.Code
	want   Outcome
}

func wantClassifications(t *testing.T, tests map[string]classification) {
	t.Helper()
	for name, tt := range tests {
		if got := Classify(tt.method, tt.code); got != tt.want {
			t.Errorf("%s: %s %s: got %s", name, tt.method, tt.code, got)
		}
	}
}

func TestOutcomesOfCreating(t *testing.T) {
	wantClassifications(t, map[string]classification{
		"a create that was cancelled may be running":               {CreateVolume, codes.Canceled, OutcomeUnknown},
		"a create that took too long may be running":               {CreateVolume, codes.DeadlineExceeded, OutcomeUnknown},
		"a create whose connection broke may be running":           {CreateVolume, codes.Unavailable, OutcomeUnknown},
		"a create that collided with another call may be running":  {CreateVolume, codes.Aborted, OutcomeUnknown},
		"a create without capacity may succeed in another segment": {CreateVolume, codes.ResourceExhausted, OutOfCapacity},
		"a create with wrong arguments is retried slowly":          {CreateVolume, codes.InvalidArgument, Infeasible},
		"a create of an impossible size has failed":                {CreateVolume, codes.OutOfRange, Failed},
		"a create from a missing source has failed":                {CreateVolume, codes.NotFound, Failed},
		"a create whose conditions are not met has failed":         {CreateVolume, codes.FailedPrecondition, Failed},
		"a create of a name that exists may have created it":       {CreateVolume, codes.AlreadyExists, OutcomeUnknown},
		"a create with an internal error may have done its work":   {CreateVolume, codes.Internal, OutcomeUnknown},
		"a create with an unknown error may have done its work":    {CreateVolume, codes.Unknown, OutcomeUnknown},
		"a success has no outcome, and gets the safe one":          {CreateVolume, codes.OK, OutcomeUnknown},
	})
}

func TestOutcomesOfPublishing(t *testing.T) {
	wantClassifications(t, map[string]classification{
		"a publish that was cancelled may be running":        {ControllerPublishVolume, codes.Canceled, OutcomeUnknown},
		"a publish that took too long may be running":        {ControllerPublishVolume, codes.DeadlineExceeded, OutcomeUnknown},
		"a publish whose connection broke may be running":    {ControllerPublishVolume, codes.Unavailable, OutcomeUnknown},
		"a publish that collided may be running":             {ControllerPublishVolume, codes.Aborted, OutcomeUnknown},
		"a publish on a full node may be running":            {ControllerPublishVolume, codes.ResourceExhausted, OutcomeUnknown},
		"a publish with wrong arguments has failed":          {ControllerPublishVolume, codes.InvalidArgument, Failed},
		"a publish out of range has failed":                  {ControllerPublishVolume, codes.OutOfRange, Failed},
		"a publish of a missing volume has failed":           {ControllerPublishVolume, codes.NotFound, Failed},
		"a publish of a volume that another node uses waits": {ControllerPublishVolume, codes.FailedPrecondition, InUse},
		"a publish with another mode than before has failed": {ControllerPublishVolume, codes.AlreadyExists, Failed},
	})
}

func TestOutcomesOfExpanding(t *testing.T) {
	wantClassifications(t, map[string]classification{
		"an expansion that was cancelled may be running":        {ControllerExpandVolume, codes.Canceled, OutcomeUnknown},
		"an expansion that took too long may be running":        {ControllerExpandVolume, codes.DeadlineExceeded, OutcomeUnknown},
		"an expansion whose connection broke may be running":    {ControllerExpandVolume, codes.Unavailable, OutcomeUnknown},
		"an expansion that collided may be running":             {ControllerExpandVolume, codes.Aborted, OutcomeUnknown},
		"an expansion without capacity may be running":          {ControllerExpandVolume, codes.ResourceExhausted, OutcomeUnknown},
		"an expansion with wrong arguments is retried slowly":   {ControllerExpandVolume, codes.InvalidArgument, Infeasible},
		"an expansion to an impossible size is retried slowly":  {ControllerExpandVolume, codes.OutOfRange, Infeasible},
		"an expansion of a missing volume is retried slowly":    {ControllerExpandVolume, codes.NotFound, Infeasible},
		"an expansion of a volume in use waits for its release": {ControllerExpandVolume, codes.FailedPrecondition, InUse},
		"an expansion with an internal error has failed":        {ControllerExpandVolume, codes.Internal, Failed},
	})
}

func TestOutcomesOfModifying(t *testing.T) {
	wantClassifications(t, map[string]classification{
		"a modification that was cancelled may be running":         {ControllerModifyVolume, codes.Canceled, OutcomeUnknown},
		"a modification that took too long may be running":         {ControllerModifyVolume, codes.DeadlineExceeded, OutcomeUnknown},
		"a modification whose connection broke may be running":     {ControllerModifyVolume, codes.Unavailable, OutcomeUnknown},
		"a modification that collided may be running":              {ControllerModifyVolume, codes.Aborted, OutcomeUnknown},
		"a modification that is throttled may be running":          {ControllerModifyVolume, codes.ResourceExhausted, OutcomeUnknown},
		"a modification with unknown parameters is retried slowly": {ControllerModifyVolume, codes.InvalidArgument, Infeasible},
		"a modification out of range has failed":                   {ControllerModifyVolume, codes.OutOfRange, Failed},
		"a modification of a missing volume has failed":            {ControllerModifyVolume, codes.NotFound, Failed},
		"a modification whose conditions are not met has failed":   {ControllerModifyVolume, codes.FailedPrecondition, Failed},
		"a modification with an internal error has failed":         {ControllerModifyVolume, codes.Internal, Failed},
	})
}

func TestOutcomesOfSnapshots(t *testing.T) {
	wantClassifications(t, map[string]classification{
		"a snapshot that was cancelled may be running":         {CreateSnapshot, codes.Canceled, OutcomeUnknown},
		"a snapshot that took too long may be running":         {CreateSnapshot, codes.DeadlineExceeded, OutcomeUnknown},
		"a snapshot whose connection broke may be running":     {CreateSnapshot, codes.Unavailable, OutcomeUnknown},
		"a snapshot that collided may be running":              {CreateSnapshot, codes.Aborted, OutcomeUnknown},
		"a snapshot without capacity may be running":           {CreateSnapshot, codes.ResourceExhausted, OutcomeUnknown},
		"a snapshot with wrong arguments has failed":           {CreateSnapshot, codes.InvalidArgument, Failed},
		"a snapshot of a name that exists may have created it": {CreateSnapshot, codes.AlreadyExists, OutcomeUnknown},
		"a snapshot with an internal error may exist":          {CreateSnapshot, codes.Internal, OutcomeUnknown},
		"a snapshot with an unknown error may exist":           {CreateSnapshot, codes.Unknown, OutcomeUnknown},
		"a delete of a snapshot in use waits for its release":  {DeleteSnapshot, codes.FailedPrecondition, InUse},
	})
}

func TestOutcomesOfGroupSnapshots(t *testing.T) {
	wantClassifications(t, map[string]classification{
		"a group that took too long may be running":                      {CreateVolumeGroupSnapshot, codes.DeadlineExceeded, OutcomeUnknown},
		"a group that collided may be running":                           {CreateVolumeGroupSnapshot, codes.Aborted, OutcomeUnknown},
		"a group without capacity may be running":                        {CreateVolumeGroupSnapshot, codes.ResourceExhausted, OutcomeUnknown},
		"a group of a name that exists may have created it":              {CreateVolumeGroupSnapshot, codes.AlreadyExists, OutcomeUnknown},
		"a group with an internal error may exist":                       {CreateVolumeGroupSnapshot, codes.Internal, OutcomeUnknown},
		"a group with an unknown error may exist":                        {CreateVolumeGroupSnapshot, codes.Unknown, OutcomeUnknown},
		"volumes that cannot be snapshotted together are retried slowly": {CreateVolumeGroupSnapshot, codes.FailedPrecondition, Infeasible},
		"a delete of a group in use waits for its release":               {DeleteVolumeGroupSnapshot, codes.FailedPrecondition, InUse},
		"a delete with other members than the group's has failed":        {DeleteVolumeGroupSnapshot, codes.InvalidArgument, Failed},
		"a read of a missing group has failed":                           {GetVolumeGroupSnapshot, codes.NotFound, Failed},
		"a read with other members than the group's has failed":          {GetVolumeGroupSnapshot, codes.InvalidArgument, Failed},
		"a delete of a member without its group has failed":              {DeleteSnapshot, codes.InvalidArgument, Failed},
	})
}

func TestOutcomesOfOtherCalls(t *testing.T) {
	wantClassifications(t, map[string]classification{
		"a delete of a volume in use waits for its release": {DeleteVolume, codes.FailedPrecondition, InUse},
		"a delete that took too long may be running":        {DeleteVolume, codes.DeadlineExceeded, OutcomeUnknown},
		"a delete with an internal error has failed":        {DeleteVolume, codes.Internal, Failed},
		"an unpublish that is not allowed has failed":       {ControllerUnpublishVolume, codes.PermissionDenied, Failed},
	})
}

func TestResponded(t *testing.T) {
	driver := &Driver{link: &link{path: "/csi.sock"}}
	for name, tt := range map[string]struct {
		err  error
		want bool
	}{
		"a rejected request":         {driver.fail(CreateVolume, status.Error(codes.InvalidArgument, "")), true},
		"no capacity":                {driver.fail(CreateVolume, status.Error(codes.ResourceExhausted, "")), true},
		"an internal error":          {driver.fail(CreateVolume, status.Error(codes.Internal, "")), true},
		"an object that exists":      {driver.fail(CreateSnapshot, status.Error(codes.AlreadyExists, "")), true},
		"a wrapped error":            {fmt.Errorf("creating: %w", driver.fail(CreateVolume, status.Error(codes.Unknown, ""))), true},
		"a timeout":                  {driver.fail(CreateVolume, status.Error(codes.DeadlineExceeded, "")), false},
		"an operation in progress":   {driver.fail(CreateVolume, status.Error(codes.Aborted, "")), false},
		"an unreachable driver":      {driver.fail(CreateVolume, status.Error(codes.Unavailable, "")), false},
		"a driver that throttles":    {driver.fail(CreateSnapshot, status.Error(codes.ResourceExhausted, "")), false},
		"an invalid response":        {driver.invalidResponse(CreateVolume, "v", "too small"), false},
		"an error of something else": {errors.New("no"), false},
	} {
		if got := Responded(tt.err); got != tt.want {
			t.Errorf("%s: got %t", name, got)
		}
	}
}

func TestOutcomeOf(t *testing.T) {
	driver := &Driver{link: &link{path: "/csi.sock"}}
	full := driver.fail(CreateVolume, status.Error(codes.ResourceExhausted, "no room"))
	tests := map[string]struct {
		err  error
		want Outcome
	}{
		"no error": {nil, OutcomeUnknown},
		"a response of the driver has an outcome":   {full, OutOfCapacity},
		"wrapping does not change the outcome":      {fmt.Errorf("creating volume a: %w", full), OutOfCapacity},
		"an error without a gRPC status is unknown": {driver.fail(CreateVolume, errors.New("broken pipe")), OutcomeUnknown},
		"a call that was not sent is unknown":       {driver.fail(CreateVolume, context.Canceled), OutcomeUnknown},
		"an invalid response is unknown":            {driver.invalidResponse(CreateVolume, "volume-1", "it is too small"), OutcomeUnknown},
		"a status of another call is unknown":       {status.Error(codes.Internal, "elsewhere"), OutcomeUnknown},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := OutcomeOf(tt.err); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestOnlyOutcomeUnknownIsNotFinal(t *testing.T) {
	for _, v := range []Outcome{OutcomeUnknown, Failed, OutOfCapacity, Infeasible, InUse} {
		if got, want := v.Final(), v != OutcomeUnknown; got != want {
			t.Errorf("%s: got %v, want %v", v, got, want)
		}
	}
}

func TestErrorMessages(t *testing.T) {
	known := &Driver{link: &link{path: "/csi.sock"}}
	known.description.Store(&Info{Name: "local.holdfast.io"})
	unknown := &Driver{link: &link{path: "/csi.sock"}}
	tests := map[string]struct {
		err  error
		want string
	}{
		"a response of the driver": {
			known.fail(CreateVolume, status.Error(codes.ResourceExhausted, "no room")),
			"driver local.holdfast.io: CreateVolume: ResourceExhausted: no room",
		},
		"a driver whose name is unknown": {
			unknown.fail(Probe, status.Error(codes.Unavailable, "connection refused")),
			"driver at /csi.sock: Probe: Unavailable: connection refused",
		},
		"an invalid response": {
			known.invalidResponse(CreateVolume, "volume-1", "it is too small"),
			`driver local.holdfast.io: CreateVolume: the driver's response about "volume-1" cannot be used: it is too small`,
		},
		"an invalid response without an id": {
			known.invalidResponse(CreateVolume, "", "the volume has no id"),
			`driver local.holdfast.io: CreateVolume: the driver's response cannot be used: the volume has no id`,
		},
		"a call that was cancelled while it waited": {
			known.fail(DeleteVolume, fmt.Errorf("waiting for another call about volume v: %w", context.Canceled)),
			"driver local.holdfast.io: DeleteVolume: waiting for another call about volume v: context canceled",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := tt.err.Error(); got != tt.want {
				t.Errorf("\ngot  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestErrorsUnwrap(t *testing.T) {
	driver := &Driver{link: &link{path: "/csi.sock"}}
	err := fmt.Errorf("creating: %w", driver.fail(CreateVolume, status.Error(codes.NotFound, "no such snapshot")))
	if got, ok := status.FromError(err); !ok || got.Code() != codes.NotFound {
		t.Errorf("status.FromError: got %v %v", got, ok)
	}
	var called *Error
	if !errors.As(err, &called) || called.Method != CreateVolume || called.Code != codes.NotFound {
		t.Errorf("errors.As: got %+v", called)
	}
	var bad *InvalidResponse
	if !errors.As(fmt.Errorf("creating: %w", driver.invalidResponse(CreateVolume, "volume-1", "it is too small")), &bad) || bad.ID != "volume-1" {
		t.Errorf("errors.As: got %+v", bad)
	}
	if err := driver.fail(DeleteVolume, fmt.Errorf("waiting: %w", context.DeadlineExceeded)); !errors.Is(err, context.DeadlineExceeded) || err.Code != codes.DeadlineExceeded {
		t.Errorf("got %v with code %s", err, err.Code)
	}
}
