package controller

import (
	"context"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// executeDeletion takes a Step with a snapshot that is being deleted.
func (r *Reconciler) executeDeletion(ctx context.Context, s *Observed, next Step) (time.Duration, error) {
	switch next.Action {
	case ReportBlocker:
		r.events.Warning(s.Snapshot.Object, next.Problem.Reason, next.Problem.Text)
	case ReportDeletionError:
		return 0, r.reportDeletionError(ctx, s, next.Problem)
	case ReportNodeGone:
		return r.reportNodeGone(ctx, s, next.Problem)
	case DeleteContent:
		return 0, r.deleteContent(ctx, s)
	case RemoveFinalizers:
		return 0, r.removeFinalizers(ctx, s)
	default:
	}
	return 0, nil
}

// deleteContent lets the content go. A snapshot whose content stays is not needed for
// that any more.
func (r *Reconciler) deleteContent(ctx context.Context, s *Observed) error {
	if err := r.allowAndDeleteContent(ctx, s); err != nil || !s.contentIsRetained() {
		return err
	}
	return r.removeFinalizers(ctx, s)
}

// allowAndDeleteContent gives the driver's half our word that the content may go, and deletes it
// if that is its policy. Both are on the condition that the content is what was
// seen: an administrator may just have set the policy to Retain.
func (r *Reconciler) allowAndDeleteContent(ctx context.Context, s *Observed) error {
	content := s.Content.Object
	if err := r.Keys.AllowDeletion(ctx, r.client, content); err != nil {
		return err
	}
	if s.contentIsRetained() || s.contentIsDeleting() {
		return nil
	}
	uid, version := content.GetUID(), content.GetResourceVersion()
	err := client.IgnoreNotFound(r.client.Delete(ctx, content, client.Preconditions{UID: &uid, ResourceVersion: &version}))
	if apierrors.IsConflict(err) {
		return kube.Conflict("%s %s is not what was seen any more: %w", r.Content, content.GetName(), err)
	}
	if err != nil {
		r.events.Warning(s.Snapshot.Object, r.Reasons.ContentDeletion, fmt.Sprintf("%s %s could not be deleted: %v", r.Content, content.GetName(), err))
		return fmt.Errorf("deleting %s %s: %w", r.Content, content.GetName(), err)
	}
	return nil
}

// removeFinalizers takes our finalizers off the snapshot. That the cache shows no content of
// its own is not enough: it may have been made, or bound, a moment ago.
func (r *Reconciler) removeFinalizers(ctx context.Context, s *Observed) error {
	if !s.isBound() {
		if err := r.readContent(ctx, r.apiReader, s); err != nil {
			return err
		}
		if s.isBound() {
			return r.deleteContent(ctx, s)
		}
	}
	o := s.Snapshot.Object
	left := slices.DeleteFunc(slices.Clone(o.GetFinalizers()), func(f string) bool { return slices.Contains(r.OwnFinalizers, f) })
	err := kube.MergePatch(ctx, r.client, o, map[string]any{"metadata": map[string]any{
		"resourceVersion": o.GetResourceVersion(), "finalizers": left,
	}})
	if err == nil {
		r.recordDeletion(ctx, s)
	}
	return kube.WrapWriteError(client.IgnoreNotFound(err), "letting the "+r.Noun+" go")
}

// recordDeletion measures what has ended with a snapshot that was let go.
func (r *Reconciler) recordDeletion(ctx context.Context, s *Observed) {
	if s.Content == nil && s.Snapshot.Class != "" {
		s.Class, _ = r.kind.GetClass(ctx, s.Snapshot.Class) // Without it the driver is unknown.
	}
	r.durations.ObserveDeletion(r.progress(s))
}
