package sidecar

import (
	"context"
	"slices"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// mark puts on record that the driver is about to be asked, and for what, if it
// is not: with the finalizer, in one write, on the condition that the content is
// still what was seen.
func (r *Reconciler) mark(ctx context.Context, s *seen, a *asked) error {
	text := a.String()
	annotations := s.Object.GetAnnotations()
	if r.marked(s) && r.held(s) && annotations[askedAnnotation] == text {
		return nil
	}
	finalizers := s.Object.GetFinalizers()
	if !r.held(s) {
		finalizers = append(slices.Clone(finalizers), r.marks.Finalizer)
	}
	return kube.WrapWriteError(r.patch(ctx, s, map[string]any{
		"resourceVersion": s.Object.GetResourceVersion(),
		"finalizers":      finalizers,
		"annotations":     map[string]any{r.marks.BeingCreated: snapshot.Yes, askedAnnotation: text},
	}), "recording what the driver is asked for")
}

// settle takes the mark off: the driver's answer is on record, or nothing was made.
func (r *Reconciler) settle(ctx context.Context, s *seen) error {
	if !r.marked(s) {
		return nil
	}
	return kube.WrapWriteError(r.patch(ctx, s, map[string]any{
		"uid":         s.Object.GetUID(),
		"annotations": map[string]any{r.marks.BeingCreated: nil, refusedAnnotation: nil},
	}), "recording that the driver has answered")
}

// remark puts the mark, and the record, on again when it is not known what the driver
// has made, and since when the driver has refused to say more; zero for not at all.
// Usually that changes little. But upstream's controller writes all annotations as its
// cache shows them when it gives its word that a content may go, and so may have taken
// off what was put on a moment before. Without the mark the content would go, and what
// the driver may have made would stay.
func (r *Reconciler) remark(ctx context.Context, s *seen, refused time.Time) error {
	annotations := map[string]any{
		r.marks.BeingCreated: snapshot.Yes, refusedAnnotation: nil,
		askedAnnotation: s.Object.GetAnnotations()[askedAnnotation],
	}
	if !refused.IsZero() {
		annotations[refusedAnnotation] = refused.UTC().Format(time.RFC3339)
	}
	err := r.patch(ctx, s, map[string]any{"uid": s.Object.GetUID(), "annotations": annotations})
	return kube.WrapWriteError(client.IgnoreNotFound(err), "keeping what the driver is asked for on record")
}

// report writes what the driver says of the snapshot, and that there is no error
// any more, if that is news.
func (r *Reconciler) report(ctx context.Context, s *seen, made *Snapshot) error {
	if made.Created == 0 {
		made.Created = r.now().UnixNano()
	}
	if s.Handle == made.Handle && s.Ready == made.Ready && s.Error == nil && slices.EqualFunc(s.Members, made.Members, sameState) {
		return nil
	}
	status := r.kind.Status(&s.Content, made)
	status["error"] = nil
	err := kube.PatchStatus(ctx, r.client, s.Object, status)
	return kube.WrapWriteError(err, "recording the snapshot "+made.Handle)
}

func (r *Reconciler) patch(ctx context.Context, s *seen, metadata map[string]any) error {
	return kube.MergePatch(ctx, r.client, s.Object, map[string]any{"metadata": metadata})
}

// sameState tells whether all that may change of a member is as it was.
func sameState(a, b Member) bool { return a.Handle == b.Handle && a.Ready == b.Ready }
