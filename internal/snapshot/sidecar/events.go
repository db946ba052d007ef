package sidecar

import (
	"context"
	"errors"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// reportError reports an error that concerns users: as an event and in the content's status,
// from which snapshot-controller copies it to the VolumeSnapshot. It returns the error, so
// that the content is retried.
func (r *Reconciler) reportError(ctx context.Context, s *state, err error) error {
	text := snapshot.UserMessage(err)
	if text == "" {
		return err
	}
	if snapshot.IsNewError(s.Error, err, r.now()) {
		r.events.Warning(s.Object, r.eventReason(s, err), text)
		status := map[string]any{"error": snapshot.StatusError(text, r.now())}
		if !r.canDelete(s) {
			status["readyToUse"] = false
		}
		if writeErr := kube.WrapWriteError(kube.PatchStatus(ctx, r.client, s.Object, status), "recording the failure"); writeErr != nil && !kube.IsConflict(writeErr) {
			err = errors.Join(err, writeErr)
		}
	}
	return err
}

func (r *Reconciler) eventReason(s *state, err error) string {
	var problem *snapshot.Problem
	var driverErr *csi.Error
	switch {
	case errors.As(err, &problem):
		return problem.Reason
	case errors.As(err, &driverErr) && (driverErr.Method == csi.DeleteSnapshot || driverErr.Method == csi.DeleteVolumeGroupSnapshot || r.canDelete(s)):
		return r.kind.Reasons().Delete
	case s.HasStatus:
		return r.kind.Reasons().Check
	default:
		return r.kind.Reasons().Create
	}
}
