package sidecar

import (
	"context"
	"slices"
	"time"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// recordRequest records the request on the content, with the being-created annotation and the
// finalizer, in one write. It does nothing if all of that is there, and fails if the content
// has changed.
func (r *Reconciler) recordRequest(ctx context.Context, s *state, record *requestRecord) error {
	text := record.String()
	annotations := s.Object.GetAnnotations()
	if r.isBeingCreated(s) && r.hasFinalizer(s) && annotations[requestAnnotation] == text {
		return nil
	}
	finalizers := s.Object.GetFinalizers()
	if !r.hasFinalizer(s) {
		finalizers = append(slices.Clone(finalizers), r.keys.Finalizer)
	}
	return kube.WrapWriteError(r.patchMetadata(ctx, s, map[string]any{
		"resourceVersion": s.Object.GetResourceVersion(),
		"finalizers":      finalizers,
		"annotations":     map[string]any{r.keys.BeingCreated: snapshot.Yes, requestAnnotation: text},
	}), "recording the request on content "+s.Object.GetName())
}

// clearBeingCreated removes the being-created annotation, once the response is recorded or it
// is certain that nothing was created.
func (r *Reconciler) clearBeingCreated(ctx context.Context, s *state) error {
	if !r.isBeingCreated(s) {
		return nil
	}
	return kube.WrapWriteError(r.patchMetadata(ctx, s, map[string]any{
		"uid":         s.Object.GetUID(),
		"annotations": map[string]any{r.keys.BeingCreated: nil, rejectedSinceAnnotation: nil},
	}), "removing the being-created annotation of content "+s.Object.GetName())
}

// renewRecord writes the being-created annotation and the recorded request again while the
// outcome is unknown, and since when the driver has rejected the request (zero if it has
// not). Usually they are unchanged. But upstream's snapshot-controller writes all annotations
// from its cache when it sets the being-deleted annotation, and may have removed those that
// were added just before. Without the annotation, the content would be deleted and a created
// snapshot would be orphaned.
func (r *Reconciler) renewRecord(ctx context.Context, s *state, rejectedSince time.Time) error {
	annotations := map[string]any{
		r.keys.BeingCreated: snapshot.Yes, rejectedSinceAnnotation: nil,
		requestAnnotation: s.Object.GetAnnotations()[requestAnnotation],
	}
	if !rejectedSince.IsZero() {
		annotations[rejectedSinceAnnotation] = rejectedSince.UTC().Format(time.RFC3339)
	}
	err := r.patchMetadata(ctx, s, map[string]any{"uid": s.Object.GetUID(), "annotations": annotations})
	return kube.WrapWriteError(kube.IgnoreGone(err), "recording the request on content "+s.Object.GetName()+" again")
}

// writeStatus writes the snapshot's state and clears the error, if anything changes.
func (r *Reconciler) writeStatus(ctx context.Context, s *state, made *Snapshot) error {
	if made.Created == 0 {
		made.Created = r.now().UnixNano()
	}
	if s.Handle == made.Handle && s.Ready == made.Ready && s.Error == nil && slices.EqualFunc(s.Members, made.Members, sameMember) {
		return nil
	}
	status := r.kind.StatusPatch(&s.Content, made)
	status["error"] = nil
	err := kube.PatchStatus(ctx, r.client, s.Object, status)
	return kube.WrapWriteError(err, "recording the snapshot "+made.Handle+" on content "+s.Object.GetName())
}

func (r *Reconciler) patchMetadata(ctx context.Context, s *state, metadata map[string]any) error {
	return kube.MergePatch(ctx, r.client, s.Object, map[string]any{"metadata": metadata})
}

// sameMember reports whether the fields of a member that can change are equal.
func sameMember(a, b Member) bool { return a.Handle == b.Handle && a.Ready == b.Ready }
