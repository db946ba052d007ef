package snapshot

import (
	"context"
	"fmt"
	"slices"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// snapshot-controller protects contents with a finalizer, and allows csi-snapshotter to
// delete them with the being-deleted annotation.

// WithFinalizer returns the content's finalizers and ours.
func (k Keys) WithFinalizer(content client.Object) []string {
	all := content.GetFinalizers()
	if slices.Contains(all, k.Finalizer) {
		return all
	}
	return append(slices.Clone(all), k.Finalizer)
}

// AddFinalizer adds our finalizer to a content. It fails if the content has changed.
func (k Keys) AddFinalizer(ctx context.Context, c client.Client, content client.Object) error {
	if content.GetDeletionTimestamp() != nil || len(k.WithFinalizer(content)) == len(content.GetFinalizers()) {
		return nil
	}
	return kube.WrapWriteError(kube.MergePatch(ctx, c, content, map[string]any{"metadata": map[string]any{
		"resourceVersion": content.GetResourceVersion(), "finalizers": k.WithFinalizer(content),
	}}), fmt.Sprintf("protecting %s %s", k.Content, content.GetName()))
}

// DeletionAllowed reports whether a content has the being-deleted annotation.
func (k Keys) DeletionAllowed(content client.Object) bool {
	_, ok := content.GetAnnotations()[k.BeingDeleted]
	return ok
}

// AllowDeletion sets the being-deleted annotation, which lets csi-snapshotter delete the
// content. It also adds the finalizer if it is missing, so that the content stays until
// csi-snapshotter has deleted the snapshot: another program may have created the content a
// moment ago.
func (k Keys) AllowDeletion(ctx context.Context, c client.Client, content client.Object) error {
	if k.DeletionAllowed(content) {
		return nil
	}
	metadata := map[string]any{
		"resourceVersion": content.GetResourceVersion(),
		"annotations":     map[string]any{k.BeingDeleted: Yes},
	}
	if content.GetDeletionTimestamp() == nil {
		metadata["finalizers"] = k.WithFinalizer(content)
	}
	return kube.WrapWriteError(kube.MergePatch(ctx, c, content, map[string]any{"metadata": metadata}),
		fmt.Sprintf("allowing the deletion of %s %s", k.Content, content.GetName()))
}
