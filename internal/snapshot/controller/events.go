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

// emitEvent emits one event for what has changed in the status.
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

// reportError reports a [snapshot.Problem], and a request that the API server denies, in the
// snapshot's status and as an event. Other errors are not the user's concern. It returns the
// error, so that the snapshot is reconciled again.
func (r *Reconciler) reportError(ctx context.Context, s *Observed, err error) error {
	problem := r.problemOf(s, err)
	if problem == nil {
		return err
	}
	r.events.Warning(s.Snapshot.Object, problem.Reason, problem.Text)
	if !snapshot.IsNewError(s.Snapshot.Error, err, r.now()) {
		return err
	}
	status := map[string]any{"error": snapshot.StatusError(problem.Text, r.now())}
	if !kube.IsDenied(err) || !s.isDeleting() && !s.Snapshot.Ready { // A denied write says nothing about a snapshot that is ready.
		status["readyToUse"] = false
	}
	if statusErr := r.patchStatus(ctx, s.Snapshot, status); statusErr != nil && !kube.IsConflict(statusErr) {
		err = errors.Join(err, statusErr)
	}
	return err
}

// problemOf returns what an error tells the user; nil if it does not concern the user.
func (r *Reconciler) problemOf(s *Observed, err error) *snapshot.Problem {
	var problem *snapshot.Problem
	if errors.As(err, &problem) || !kube.IsDenied(err) {
		return problem
	}
	problem = &snapshot.Problem{Reason: r.Reasons.ContentCreation, Text: kube.Message(err)}
	switch {
	case s.isDeleting():
		problem.Reason = r.Reasons.DeletionPending
	case s.isPreProvisioned() && s.Content != nil && !s.isBound():
		problem.Reason = r.Reasons.BindFailed
	}
	return problem
}

// reportDeletionError tells the user why a snapshot is not deleted yet. Most users may
// not read contents. It leaves readyToUse as it is.
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
