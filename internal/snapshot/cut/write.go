package cut

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

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
	return written(r.patch(ctx, s, map[string]any{
		"resourceVersion": s.Object.GetResourceVersion(),
		"finalizers":      finalizers,
		"annotations":     map[string]any{r.marks.BeingCreated: snapshot.Yes, askedAnnotation: text},
	}), "recording what the driver is asked for")
}

// settle takes the mark off: the driver's answer is on record.
func (r *Reconciler) settle(ctx context.Context, s *seen) error {
	if !r.marked(s) {
		return nil
	}
	return written(r.patch(ctx, s, map[string]any{
		"uid":         s.Object.GetUID(),
		"annotations": map[string]any{r.marks.BeingCreated: nil},
	}), "recording that the driver has answered")
}

// report writes what the driver says of the snapshot, and that there is no error
// any more, if that is news.
func (r *Reconciler) report(ctx context.Context, s *seen, made *Cut) error {
	if made.Created == 0 {
		made.Created = r.now().UnixNano()
	}
	if s.Handle == made.Handle && s.Ready == made.Ready && s.Error == nil {
		return nil
	}
	status := r.kind.Status(&s.Content, made)
	status["error"] = nil
	err := r.patchStatus(ctx, s, status)
	return written(err, "recording the snapshot "+made.Handle)
}

func (r *Reconciler) patch(ctx context.Context, s *seen, metadata map[string]any) error {
	patch, err := json.Marshal(map[string]any{"metadata": metadata})
	if err != nil {
		return fmt.Errorf("encoding a change of %s: %w", s.Object.GetName(), err)
	}
	return r.client.Patch(ctx, s.Object, client.RawPatch(types.MergePatchType, patch))
}

func (r *Reconciler) patchStatus(ctx context.Context, s *seen, status map[string]any) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": s.Object.GetUID()}, "status": status})
	if err != nil {
		return fmt.Errorf("encoding the status of %s: %w", s.Object.GetName(), err)
	}
	return r.client.Status().Patch(ctx, s.Object, client.RawPatch(types.MergePatchType, patch))
}
