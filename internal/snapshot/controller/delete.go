package controller

import (
	"context"
	"fmt"
	"slices"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// executeDeletion takes a step with a snapshot that is being deleted.
func (r *Reconciler) executeDeletion(ctx context.Context, s *Observed, next Step) (time.Duration, error) {
	switch next.Action {
	case ReportBlocker:
		r.events.Warning(s.Snapshot.Object, next.Problem.Reason, next.Problem.Text)
	case ReportDeletionError:
		return 0, r.reportDeletionError(ctx, s, next.Problem)
	case ReportNodeGone:
		return r.reportNodeGone(ctx, s, next.Problem)
	case AwaitContentDeletion:
		return r.reportIfNotDeleted(ctx, s), nil
	case DeleteContent:
		return 0, r.deleteContent(ctx, s)
	case RemoveFinalizers:
		return 0, r.removeFinalizers(ctx, s)
	default:
	}
	return 0, nil
}

// deleteContent allows the deletion of the content, and deletes it. If the content is
// retained, nothing needs the snapshot any more, and its finalizers are removed.
func (r *Reconciler) deleteContent(ctx context.Context, s *Observed) error {
	if err := r.allowAndDeleteContent(ctx, s); err != nil || !s.contentIsRetained() {
		return err
	}
	return r.removeFinalizers(ctx, s)
}

// allowAndDeleteContent sets the being-deleted annotation, which lets the csi-snapshotter
// delete the snapshot at the driver, and deletes the content unless it is retained. Both
// writes fail if the content has changed: an administrator may just have set its policy
// to Retain.
func (r *Reconciler) allowAndDeleteContent(ctx context.Context, s *Observed) error {
	content := s.Content.Object
	if err := r.Keys.AllowDeletion(ctx, r.client, content); err != nil {
		return err
	}
	if s.contentIsRetained() || s.contentIsDeleting() {
		return nil
	}
	uid, version := content.GetUID(), content.GetResourceVersion()
	err := kube.IgnoreGone(r.client.Delete(ctx, content, client.Preconditions{UID: &uid, ResourceVersion: &version}))
	return r.wrapDeletionError(s, kube.WrapWriteError(err, fmt.Sprintf("deleting %s %s", r.Content, content.GetName())))
}

// wrapDeletionError emits an event about a content that the API server does not delete. One
// that it denies is reported by the caller.
func (r *Reconciler) wrapDeletionError(s *Observed, err error) error {
	if err != nil && !kube.IsConflict(err) && !kube.IsDenied(err) {
		r.events.Warning(s.Snapshot.Object, r.Reasons.ContentDeletion, err.Error())
	}
	return err
}

// removeFinalizers removes our finalizers from the snapshot. Before that it looks for the
// content at the API server: the cache may not show one that was just created or bound.
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
	return kube.WrapWriteError(kube.IgnoreGone(err), "removing finalizers from the "+r.Noun)
}

// recordDeletion observes the durations of the operations that end with the snapshot.
func (r *Reconciler) recordDeletion(ctx context.Context, s *Observed) {
	if s.Content == nil && s.Snapshot.Class != "" {
		s.Class, _ = r.kind.GetClass(ctx, s.Snapshot.Class) // Without it the driver is unknown.
	}
	r.durations.ObserveDeletion(r.progress(s))
}
