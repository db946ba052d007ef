package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// syncStatus copies the status of the content to the snapshot, after all members of a
// group exist. It adds finalizers that are missing: another program, or a user, may have
// created the content.
func (r *Reconciler) syncStatus(ctx context.Context, s *Observed) (time.Duration, error) {
	if err := r.addFinalizers(ctx, s, s.Content.Retain, ""); err != nil {
		return 0, err
	}
	if err := r.Keys.AddFinalizer(ctx, r.client, s.Content.Object); err != nil {
		return 0, err
	}
	age := r.now().Sub(s.Content.Object.GetCreationTimestamp().Time)
	if s.Content.Status == nil && s.Snapshot.Status == nil && age < sidecarGracePeriod {
		return sidecarGracePeriod - age, nil
	}
	unready, err := r.kind.CreateMembers(ctx, s.Snapshot, s.Content)
	if err != nil {
		return 0, err
	}
	if err := r.updateStatus(ctx, s, unready); err != nil {
		return 0, err
	}
	return r.reportIfNotServed(ctx, s), nil
}

// reportIfNotServed emits an event if no csi-snapshotter has begun with the content in
// time. It returns how long that may still take; 0 if one has begun.
func (r *Reconciler) reportIfNotServed(ctx context.Context, s *Observed) time.Duration {
	if s.Content.Status != nil || r.Keys.CreationStarted(s.Content.Object) {
		return 0
	}
	problem, left := r.SidecarWait.Check(s.Snapshot.Object, s.Content.Object, s.Content.Driver, r.now())
	r.reportSidecar(ctx, s, problem)
	return left
}

// reportIfNotDeleted emits an event if no csi-snapshotter has deleted the content in time, or
// said why not. It returns how long that may still take.
func (r *Reconciler) reportIfNotDeleted(ctx context.Context, s *Observed) time.Duration {
	problem, left := r.SidecarWait.CheckDeletion(s.Content.Object, s.Content.Driver, errorMessage(s.Content.Error), r.now())
	r.reportSidecar(ctx, s, problem)
	return left
}

// reportSidecar emits an event about a csi-snapshotter that does nothing. One that is denied
// its writes has told so by an event on the snapshot.
func (r *Reconciler) reportSidecar(ctx context.Context, s *Observed, problem *snapshot.Problem) {
	if problem == nil {
		return
	}
	denied, err := kube.HasEvent(ctx, r.apiReader, s.Snapshot.Object, kube.ReasonDenied)
	if err != nil { // Not every role permits to list events.
		ctrl.LoggerFrom(ctx).V(1).Info("Could not look for an event of the csi-snapshotter", "reason", err.Error())
	}
	if !denied {
		r.events.Warning(s.Snapshot.Object, problem.Reason, problem.Text)
	}
}

// updateStatus writes the content's status to the snapshot if it differs, and emits an
// event.
func (r *Reconciler) updateStatus(ctx context.Context, s *Observed, unready []string) error {
	now := r.kind.WithContentStatus(s.Snapshot, s.Content, unready)
	if equality.Semantic.DeepEqual(s.Snapshot.Status, now.Status) {
		return nil
	}
	status, err := statusPatch(now.Status)
	if err != nil {
		return fmt.Errorf("encoding the status of the %s: %w", r.Noun, err)
	}
	if err := r.patchStatus(ctx, s.Snapshot, status); err != nil {
		return err
	}
	after := *s
	after.Snapshot = now
	r.durations.ObserveProgress(r.progress(s), r.progress(&after))
	r.emitEvent(s.Snapshot, now)
	return nil
}

// patchStatus patches a snapshot's status.
func (r *Reconciler) patchStatus(ctx context.Context, s *Snapshot, status map[string]any) error {
	return kube.WrapWriteError(kube.PatchStatus(ctx, r.client, s.Object, status), "writing the status of the "+r.Noun)
}

// statusPatch is a merge patch with a whole status. It removes the error if there is
// none: the cache may not show an error that was just written.
func statusPatch(status any) (map[string]any, error) {
	text, err := json.Marshal(status)
	if err != nil {
		return nil, err
	}
	all := map[string]any{"error": nil}
	return all, json.Unmarshal(text, &all)
}
