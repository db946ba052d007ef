package sidecar

import (
	"context"
	"errors"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// failed tells what went wrong, where it concerns users: in the content's status,
// from where the cluster's half takes it to what they have made, and as an
// event. It returns the error, for another try.
func (r *Reconciler) failed(ctx context.Context, s *seen, err error) error {
	text := snapshot.UserMessage(err)
	if text == "" {
		return err
	}
	if snapshot.IsNewError(s.Error, err, r.now()) {
		r.events.Warning(s.Object, r.reason(s, err), text)
		status := map[string]any{"error": snapshot.StatusError(text, r.now())}
		if !r.mayGo(s) {
			status["readyToUse"] = false
		}
		if writing := kube.WrapWriteError(kube.PatchStatus(ctx, r.client, s.Object, status), "recording the failure"); writing != nil && !kube.IsConflict(writing) {
			err = errors.Join(err, writing)
		}
	}
	return err
}

func (r *Reconciler) reason(s *seen, err error) string {
	var problem *snapshot.Problem
	var answer *csi.Error
	switch {
	case errors.As(err, &problem):
		return problem.Reason
	case errors.As(err, &answer) && (answer.Method == csi.DeleteSnapshot || answer.Method == csi.DeleteVolumeGroupSnapshot || r.mayGo(s)):
		return r.kind.Reasons().Delete
	case s.Status:
		return r.kind.Reasons().Follow
	default:
		return r.kind.Reasons().Create
	}
}
