package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// operation is one step of a JSON patch (RFC 6902).
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

// IsConflictResponse tells whether an error of this package says that the object is not
// the one that was seen any more. The change is an event, so whoever watches
// the object decides again anyway.
func IsConflictResponse(err error) bool {
	// A condition of a JSON patch that does not hold is reported as Invalid.
	return apierrors.IsConflict(err) || apierrors.IsInvalid(err) || apierrors.IsNotFound(err)
}

// AddFinalizer puts a finalizer on an object as it was seen; see Changed for
// when the object has changed since. Nothing is written if it is there already.
func AddFinalizer(ctx context.Context, c client.Client, o client.Object, finalizer string) error {
	if slices.Contains(o.GetFinalizers(), finalizer) {
		return nil
	}
	return setFinalizers(ctx, c, o, append(slices.Clone(o.GetFinalizers()), finalizer))
}

// RemoveFinalizer takes a finalizer off an object as it was seen; see Changed
// for when the object has changed since, so that nobody else's finalizer is
// lost or brought back. Nothing is written if it is not there; an object that
// is gone is a success.
func RemoveFinalizer(ctx context.Context, c client.Client, o client.Object, finalizer string) error {
	if !slices.Contains(o.GetFinalizers(), finalizer) {
		return nil
	}
	left := slices.DeleteFunc(slices.Clone(o.GetFinalizers()), func(f string) bool { return f == finalizer })
	return client.IgnoreNotFound(setFinalizers(ctx, c, o, left))
}

// setFinalizers patches one list only, on the condition that the object and the
// list are still those that were seen. A patch keeps fields that this program
// does not know, which an update would drop.
func setFinalizers(ctx context.Context, c client.Client, o client.Object, finalizers []string) error {
	var seen any // A list that is not there is null.
	if len(o.GetFinalizers()) > 0 {
		seen = o.GetFinalizers()
	}
	patch, err := json.Marshal([]operation{
		{Op: "test", Path: "/metadata/uid", Value: o.GetUID()},
		{Op: "test", Path: "/metadata/finalizers", Value: seen},
		{Op: "add", Path: "/metadata/finalizers", Value: finalizers},
	})
	if err != nil {
		return fmt.Errorf("encoding the finalizers of %s: %w", o.GetName(), err)
	}
	return c.Patch(ctx, o, client.RawPatch(types.JSONPatchType, patch))
}
