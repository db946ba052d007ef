package sidecar

import (
	"context"
	"slices"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// recordRequest puts on record that the driver is about to be asked, and for what, if it
// is not: with the finalizer, in one write, on the condition that the content is
// still what was seen.
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
	}), "recording what the driver is asked for")
}

// clearBeingCreated takes the mark off: the driver's answer is on record, or nothing was made.
func (r *Reconciler) clearBeingCreated(ctx context.Context, s *state) error {
	if !r.isBeingCreated(s) {
		return nil
	}
	return kube.WrapWriteError(r.patchMetadata(ctx, s, map[string]any{
		"uid":         s.Object.GetUID(),
		"annotations": map[string]any{r.keys.BeingCreated: nil, rejectedSinceAnnotation: nil},
	}), "recording that the driver has answered")
}

// renewRecord puts the mark, and the record, on again when it is not known what the driver
// has made, and since when the driver has refused to say more; zero for not at all.
// Usually that changes little. But upstream's controller writes all annotations as its
// cache shows them when it gives its word that a content may go, and so may have taken
// off what was put on a moment before. Without the mark the content would go, and what
// the driver may have made would stay.
func (r *Reconciler) renewRecord(ctx context.Context, s *state, rejectedSince time.Time) error {
	annotations := map[string]any{
		r.keys.BeingCreated: snapshot.Yes, rejectedSinceAnnotation: nil,
		requestAnnotation: s.Object.GetAnnotations()[requestAnnotation],
	}
	if !rejectedSince.IsZero() {
		annotations[rejectedSinceAnnotation] = rejectedSince.UTC().Format(time.RFC3339)
	}
	err := r.patchMetadata(ctx, s, map[string]any{"uid": s.Object.GetUID(), "annotations": annotations})
	return kube.WrapWriteError(client.IgnoreNotFound(err), "keeping what the driver is asked for on record")
}

// writeStatus writes what the driver says of the snapshot, and that there is no error
// any more, if that is news.
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
	return kube.WrapWriteError(err, "recording the snapshot "+made.Handle)
}

func (r *Reconciler) patchMetadata(ctx context.Context, s *state, metadata map[string]any) error {
	return kube.MergePatch(ctx, r.client, s.Object, map[string]any{"metadata": metadata})
}

// sameMember tells whether all that may change of a member is as it was.
func sameMember(a, b Member) bool { return a.Handle == b.Handle && a.Ready == b.Ready }
