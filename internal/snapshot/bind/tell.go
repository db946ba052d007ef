package bind

import (
	"context"
	"errors"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// Reasons of events, upstream's.
const (
	reasonCreating        = "CreatingSnapshot"
	reasonCreated         = "SnapshotCreated"
	reasonReady           = "SnapshotReady"
	reasonContentCreation = snapshot.ReasonContentCreation
	reasonContentMissing  = "SnapshotContentMissing"
	reasonContentMisbound = "SnapshotContentMisbound"
	reasonContentMismatch = "SnapshotContentMismatch"
	reasonContentDelete   = "SnapshotContentObjectDeleteError"
	reasonMisbound        = "SnapshotMisbound"
	reasonHandleSet       = "SnapshotHandleSet"
	reasonBindFailed      = "SnapshotBindFailed"
	reasonDeletePending   = "SnapshotDeletePending"
	reasonValidation      = "SnapshotValidationError"
	reasonClass           = "GetSnapshotClassFailed"
	reasonDefaultClass    = "SetDefaultSnapshotClassFailed"
)

// service has no model upstream, where a snapshot without a driver waits in
// silence.
var service = snapshot.Service{Reason: "SnapshotNotServed", ContentKind: "VolumeSnapshotContent"}

// failed tells a user's problem where users look: in the snapshot's status and
// as an event. What only we are concerned with is not told. It returns the
// error, for another try.
func (r *Reconciler) failed(ctx context.Context, s *seen, err error) error {
	var problem *snapshot.Problem
	if !errors.As(err, &problem) {
		return err
	}
	r.events.Warning(s.snapshot, problem.Reason, problem.Text)
	before := s.snapshot.Status
	now := &snapshotv1.VolumeSnapshotStatus{}
	if before != nil {
		now = before.DeepCopy()
	}
	if !snapshot.News(now.Error, err, r.now()) {
		return err
	}
	now.Error, now.ReadyToUse = snapshot.Failure(problem.Text, r.now()), ptr.To(false)
	if writing := r.setStatus(ctx, s.snapshot, now); writing != nil && !kube.IsSuperseded(writing) {
		err = errors.Join(err, writing)
	}
	return err
}
