package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// operation is one operation of a JSON patch (RFC 6902).
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

// AddFinalizer adds a finalizer to an object, unless it has it. See
// [IsStale] for an object that has changed since it was read.
func AddFinalizer(ctx context.Context, c client.Client, o client.Object, finalizer string) error {
	if slices.Contains(o.GetFinalizers(), finalizer) {
		return nil
	}
	return setFinalizers(ctx, c, o, append(slices.Clone(o.GetFinalizers()), finalizer))
}

// RemoveFinalizer removes a finalizer from an object, if it has it. An object that is
// gone is a success. See [IsStale] for an object whose finalizers have
// changed since it was read: writing the list would drop or restore finalizers of
// others.
func RemoveFinalizer(ctx context.Context, c client.Client, o client.Object, finalizer string) error {
	if !slices.Contains(o.GetFinalizers(), finalizer) {
		return nil
	}
	left := slices.DeleteFunc(slices.Clone(o.GetFinalizers()), func(f string) bool { return f == finalizer })
	return IgnoreGone(setFinalizers(ctx, c, o, left))
}

// setFinalizers patches only the list of finalizers, on the condition that UID and list
// have not changed. An update would drop fields that this program does not know.
func setFinalizers(ctx context.Context, c client.Client, o client.Object, finalizers []string) error {
	var current any // A missing list is null.
	if len(o.GetFinalizers()) > 0 {
		current = o.GetFinalizers()
	}
	patch, err := json.Marshal([]operation{
		{Op: "test", Path: "/metadata/uid", Value: o.GetUID()},
		{Op: "test", Path: "/metadata/finalizers", Value: current},
		{Op: "add", Path: "/metadata/finalizers", Value: finalizers},
	})
	if err != nil {
		return fmt.Errorf("encoding the finalizers of %s: %w", o.GetName(), err)
	}
	return c.Patch(ctx, o, client.RawPatch(types.JSONPatchType, patch))
}
