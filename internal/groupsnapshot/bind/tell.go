package bind

import (
	"context"
	"errors"

	groupv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// Reasons of events, upstream's.
const (
	reasonCreating        = "CreatingGroupSnapshot"
	reasonCreated         = "GroupSnapshotCreated"
	reasonReady           = "GroupSnapshotReady"
	reasonCreate          = "CreateGroupSnapshotContentFailed"
	reasonContentCreation = "GroupSnapshotContentCreationFailed"
	reasonContentMissing  = "GroupSnapshotContentMissing"
	reasonContentMisbound = "GroupSnapshotContentMisbound"
	reasonContentMismatch = "GroupSnapshotContentMismatch"
	reasonContentDelete   = "GroupSnapshotContentObjectDeleteError"
	reasonMisbound        = "GroupSnapshotMisbound"
	reasonHandleSet       = "GroupSnapshotHandleSet"
	reasonBindFailed      = "GroupSnapshotBindFailed"
	reasonValidation      = "GroupSnapshotValidationError"
	reasonDeletePending   = "SnapshotDeletePending"
	reasonDelete          = "SnapshotDeleteError"
	reasonClass           = "GetGroupSnapshotClassFailed"
	reasonDefaultClass    = "SetDefaultGroupSnapshotClassFailed"
)

// service has no model upstream. A csi-snapshotter whose driver makes no groups
// leaves them alone.
var service = snapshot.Service{
	Reason: "GroupSnapshotNotServed", ContentKind: "VolumeGroupSnapshotContent",
	Needs: ", with group snapshots turned on, and does the driver make them",
}

// failed tells a user's problem where users look: in the group's status and as
// an event. What only we are concerned with is not told. It returns the error,
// for another try.
func (r *Reconciler) failed(ctx context.Context, s *seen, err error) error {
	var problem *snapshot.Problem
	if !errors.As(err, &problem) {
		return err
	}
	r.events.Warning(s.group, problem.Reason, problem.Text)
	now := &groupv1.VolumeGroupSnapshotStatus{}
	if s.group.Status != nil {
		now = s.group.Status.DeepCopy()
	}
	if !snapshot.News(now.Error, err, r.now()) {
		return err
	}
	now.Error, now.ReadyToUse = snapshot.Failure(problem.Text, r.now()), ptr.To(false)
	if writing := r.setStatus(ctx, s.group, now); writing != nil && !kube.IsSuperseded(writing) {
		err = errors.Join(err, writing)
	}
	return err
}
