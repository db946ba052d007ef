package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// follow takes over what the content says, after all is there that belongs to the
// snapshot. A content that was made by another program, or by hand, may lack what
// keeps it.
func (r *Reconciler) follow(ctx context.Context, s *Observed) (time.Duration, error) {
	if err := r.protect(ctx, s, s.Content.Retain, ""); err != nil {
		return 0, err
	}
	if err := r.Keys.AddFinalizer(ctx, r.client, s.Content.Object); err != nil {
		return 0, err
	}
	age := r.now().Sub(s.Content.Object.GetCreationTimestamp().Time)
	if s.Content.Status == nil && s.Snapshot.Status == nil && age < patience {
		return patience - age, nil
	}
	unready, err := r.kind.Gather(ctx, s.Snapshot, s.Content)
	if err != nil {
		return 0, err
	}
	if err := r.report(ctx, s, unready); err != nil {
		return 0, err
	}
	return r.suspect(s), nil
}

// suspect says so if the driver's half does not begin, and returns how long it has
// until that is said; 0 if it has begun.
func (r *Reconciler) suspect(s *Observed) time.Duration {
	if s.Content.Status != nil || r.Keys.CreationStarted(s.Content.Object) {
		return 0
	}
	told, left := r.Service.NotServed(s.Snapshot.Object, s.Content.Object, s.Content.Driver, r.now())
	if told != nil {
		r.events.Warning(s.Snapshot.Object, told.Reason, told.Text)
	}
	return left
}

// report writes what the content says to the snapshot, if that is news, and
// tells it.
func (r *Reconciler) report(ctx context.Context, s *Observed, unready []string) error {
	now := r.kind.Follow(s.Snapshot, s.Content, unready)
	if equality.Semantic.DeepEqual(s.Snapshot.Status, now.Status) {
		return nil
	}
	status, err := whole(now.Status)
	if err != nil {
		return fmt.Errorf("encoding the status of the %s: %w", r.Noun, err)
	}
	if err := r.setStatus(ctx, s.Snapshot, status); err != nil {
		return err
	}
	after := *s
	after.Snapshot = now
	r.waits.Advanced(r.progress(s), r.progress(&after))
	r.tell(s.Snapshot, now)
	return nil
}

// tell is one event for what has become of the snapshot.
func (r *Reconciler) tell(before, now *Snapshot) {
	o := now.Object
	name := o.GetNamespace() + "/" + o.GetName()
	switch {
	case now.Ready && !before.Ready:
		r.events.Normal(o, r.Reasons.Ready, fmt.Sprintf("%s %s is ready to use.", r.title(), name))
	case messageOf(now.Error) != "" && messageOf(now.Error) != messageOf(before.Error):
		r.events.Warning(o, r.Reasons.ContentCreation, messageOf(now.Error))
	case now.Created && !before.Created:
		r.events.Normal(o, r.Reasons.Created, fmt.Sprintf("%s %s was successfully created by the CSI driver.", r.title(), name))
	case !now.Created && before.Bound == "":
		r.events.Normal(o, r.Reasons.Creating, fmt.Sprintf("Waiting for a %s %s to be created by the CSI driver.", r.Noun, name))
	}
}

// setStatus writes to a snapshot's status.
func (r *Reconciler) setStatus(ctx context.Context, of *Snapshot, status map[string]any) error {
	return kube.WrapWriteError(kube.PatchStatus(ctx, r.client, of.Object, status), "writing the status of the "+r.Noun)
}

// whole is a status with all that it does not say, for a merge patch: the cache may
// not show the error that was written a moment ago.
func whole(status any) (map[string]any, error) {
	text, err := json.Marshal(status)
	if err != nil {
		return nil, err
	}
	all := map[string]any{"error": nil}
	return all, json.Unmarshal(text, &all)
}
