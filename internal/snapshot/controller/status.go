package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// syncStatus takes over what the content says, after all is there that belongs to the
// snapshot. A content that was made by another program, or by hand, may lack what
// keeps it.
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
	return r.reportIfNotServed(s), nil
}

// reportIfNotServed says so if the driver's half does not begin, and returns how long it has
// until that is said; 0 if it has begun.
func (r *Reconciler) reportIfNotServed(s *Observed) time.Duration {
	if s.Content.Status != nil || r.Keys.CreationStarted(s.Content.Object) {
		return 0
	}
	problem, left := r.SidecarWait.Check(s.Snapshot.Object, s.Content.Object, s.Content.Driver, r.now())
	if problem != nil {
		r.events.Warning(s.Snapshot.Object, problem.Reason, problem.Text)
	}
	return left
}

// updateStatus writes what the content says to the snapshot, if that is news, and
// tells it.
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

// patchStatus writes to a snapshot's status.
func (r *Reconciler) patchStatus(ctx context.Context, s *Snapshot, status map[string]any) error {
	return kube.WrapWriteError(kube.PatchStatus(ctx, r.client, s.Object, status), "writing the status of the "+r.Noun)
}

// statusPatch is a status with all that it does not say, for a merge patch: the cache may
// not show the error that was written a moment ago.
func statusPatch(status any) (map[string]any, error) {
	text, err := json.Marshal(status)
	if err != nil {
		return nil, err
	}
	all := map[string]any{"error": nil}
	return all, json.Unmarshal(text, &all)
}
