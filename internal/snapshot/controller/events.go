package controller

import (
	"context"
	"errors"
	"fmt"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// emitEvent is one event for what has become of the snapshot.
func (r *Reconciler) emitEvent(before, now *Snapshot) {
	o := now.Object
	name := o.GetNamespace() + "/" + o.GetName()
	switch {
	case now.Ready && !before.Ready:
		r.events.Normal(o, r.Reasons.Ready, fmt.Sprintf("%s %s is ready to use.", r.capitalizedNoun(), name))
	case errorMessage(now.Error) != "" && errorMessage(now.Error) != errorMessage(before.Error):
		r.events.Warning(o, r.Reasons.ContentCreation, errorMessage(now.Error))
	case now.Created && !before.Created:
		r.events.Normal(o, r.Reasons.Created, fmt.Sprintf("%s %s was successfully created by the CSI driver.", r.capitalizedNoun(), name))
	case !now.Created && before.BoundContent == "":
		r.events.Normal(o, r.Reasons.Creating, fmt.Sprintf("Waiting for a %s %s to be created by the CSI driver.", r.Noun, name))
	}
}

// reportError tells a user's problem where users look: in the snapshot's status and
// as an event. What only we are concerned with is not told. It returns the
// error, for another try.
func (r *Reconciler) reportError(ctx context.Context, s *Observed, err error) error {
	var problem *snapshot.Problem
	if !errors.As(err, &problem) {
		return err
	}
	r.events.Warning(s.Snapshot.Object, problem.Reason, problem.Text)
	if !snapshot.IsNewError(s.Snapshot.Error, err, r.now()) {
		return err
	}
	status := map[string]any{"error": snapshot.StatusError(problem.Text, r.now()), "readyToUse": false}
	if statusErr := r.patchStatus(ctx, s.Snapshot, status); statusErr != nil && !kube.IsConflict(statusErr) {
		err = errors.Join(err, statusErr)
	}
	return err
}

// reportDeletionError tells a user why a snapshot is not deleted. Contents are for administrators,
// and most users may not read them. Whether it is ready does not change by that.
func (r *Reconciler) reportDeletionError(ctx context.Context, s *Observed, problem *snapshot.Problem) error {
	r.events.Warning(s.Snapshot.Object, problem.Reason, problem.Text)
	if !snapshot.IsNewError(s.Snapshot.Error, problem, r.now()) {
		return nil
	}
	return r.patchStatus(ctx, s.Snapshot, map[string]any{"error": snapshot.StatusError(problem.Text, r.now())})
}

func errorMessage(e *snapshotv1.VolumeSnapshotError) string {
	if e == nil {
		return ""
	}
	return ptr.Deref(e.Message, "")
}
