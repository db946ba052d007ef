package snapshot

import (
	"context"
	"fmt"
	"slices"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// This file is how the cluster's half keeps a content, and how it hands it over to
// the driver's half in the end, of either kind.

// WithFinalizer are a content's finalizers with ours.
func (k Keys) WithFinalizer(content client.Object) []string {
	all := content.GetFinalizers()
	if slices.Contains(all, k.Finalizer) {
		return all
	}
	return append(slices.Clone(all), k.Finalizer)
}

// AddFinalizer puts our finalizer on a content that lacks it, as it was seen.
func (k Keys) AddFinalizer(ctx context.Context, c client.Client, content client.Object) error {
	if content.GetDeletionTimestamp() != nil || len(k.WithFinalizer(content)) == len(content.GetFinalizers()) {
		return nil
	}
	return kube.WrapWriteError(kube.MergePatch(ctx, c, content, map[string]any{"metadata": map[string]any{
		"resourceVersion": content.GetResourceVersion(), "finalizers": k.WithFinalizer(content),
	}}), fmt.Sprintf("protecting %s %s", k.Content, content.GetName()))
}

// DeletionAllowed tells whether the driver's half has our word that a content may go.
func (k Keys) DeletionAllowed(content client.Object) bool {
	_, ok := content.GetAnnotations()[k.BeingDeleted]
	return ok
}

// AllowDeletion gives the driver's half our word that a content may go, if it has not got
// it. What keeps the content until the driver's half has done its part is put on it
// with the word, if it is not there: a content of another program may have been
// made a moment ago.
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
		fmt.Sprintf("permitting the deletion of %s %s", k.Content, content.GetName()))
}
