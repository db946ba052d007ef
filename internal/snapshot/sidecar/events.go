package sidecar

import (
	"context"
	"errors"
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// reportError reports an error that concerns users: as an event and in the content's status,
// from which snapshot-controller copies it to the VolumeSnapshot. It returns the error, so
// that the content is retried.
func (r *Reconciler) reportError(ctx context.Context, s *state, err error) error {
	text := snapshot.UserMessage(err)
	if text == "" || !snapshot.IsNewError(s.Error, err, r.now()) {
		return err
	}
	r.events.Warning(s.Object, r.eventReason(s, err), text)
	if s.Ready && !r.canDelete(s) && kube.IsDenied(err) { // It has no error: it only cannot be tidied up.
		r.reportToUser(s, err)
		return err
	}
	status := map[string]any{"error": snapshot.StatusError(text, r.now())}
	if !r.canDelete(s) {
		status["readyToUse"] = false
	}
	writeErr := kube.WrapWriteError(kube.PatchStatus(ctx, r.client, s.Object, status), "recording the failure")
	if writeErr == nil || kube.IsConflict(writeErr) {
		return err
	}
	err = fmt.Errorf("%w; %w", err, writeErr)
	if kube.IsDenied(writeErr) {
		r.reportToUser(s, err)
	}
	return err
}

// reportToUser emits an event about a denied write of the content on the VolumeSnapshot,
// because the status cannot say so. Most users cannot read contents.
func (r *Reconciler) reportToUser(s *state, err error) {
	if s.Ref.UID == "" {
		return
	}
	gvk, problem := r.client.GroupVersionKindFor(s.Object)
	if problem != nil {
		return // The kind of an object that was read is known.
	}
	gvk.Kind = strings.TrimSuffix(gvk.Kind, "Content")
	user := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: s.Ref.Namespace, Name: s.Ref.Name, UID: s.Ref.UID}}
	user.SetGroupVersionKind(gvk)
	r.events.Warning(user, kube.ReasonDenied, kube.Message(err))
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
