package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// conflict is an error because the object has changed since it was read. It is not
// reported: the object is reconciled again soon.
type conflict struct{ error }

// Unwrap returns the API server's error.
func (c conflict) Unwrap() error { return c.error }

// Conflict returns an error because an object has changed since it was read.
func Conflict(format string, args ...any) error { return conflict{fmt.Errorf(format, args...)} }

// IsConflict reports whether err is only a conflict. It is false for one that is joined
// with other errors.
func IsConflict(err error) bool {
	_, only := err.(conflict) //nolint:errorlint // See above.
	return only
}

// RetryAfterConflict returns the pause after a conflict: at most a second, even if the
// first pause after a failure is longer, because a conflict is no failure.
func RetryAfterConflict(retryStart time.Duration) time.Duration {
	return min(retryStart, time.Second)
}

// WrapWriteError wraps the error of a conditional write: as a conflict, or with what
// was being done.
func WrapWriteError(err error, verb string) error {
	switch {
	case err == nil:
		return nil
	case IsStale(err):
		return conflict{err}
	default:
		return fmt.Errorf("%s: %w", verb, err)
	}
}

// MergePatch changes fields of an object by a merge patch (RFC 7386), which keeps fields
// that this program does not know.
func MergePatch(ctx context.Context, c client.Client, o client.Object, fields map[string]any) error {
	patch, err := json.Marshal(fields)
	if err != nil {
		return fmt.Errorf("encoding a patch of %s: %w", o.GetName(), err)
	}
	return c.Patch(ctx, o, client.RawPatch(types.MergePatchType, patch))
}

// PatchStatus changes fields of an object's status, unless the object was replaced by
// another of the same name.
func PatchStatus(ctx context.Context, c client.Client, o client.Object, status any) error {
	return patchStatus(ctx, c, o, map[string]any{"uid": o.GetUID()}, status)
}

func patchStatus(ctx context.Context, c client.Client, o client.Object, condition map[string]any, status any) error {
	patch, err := json.Marshal(map[string]any{"metadata": condition, "status": status})
	if err != nil {
		return fmt.Errorf("encoding the status of %s: %w", o.GetName(), err)
	}
	return c.Status().Patch(ctx, o, client.RawPatch(types.MergePatchType, patch))
}

// PatchStatusIfUnchanged changes fields of an object's status, unless the object has
// changed since it was read.
func PatchStatusIfUnchanged(ctx context.Context, c client.Client, o client.Object, status any) error {
	return patchStatus(ctx, c, o, map[string]any{"uid": o.GetUID(), "resourceVersion": o.GetResourceVersion()}, status)
}

// ChangeStatus changes an object's status and writes what differs. It writes nothing if
// nothing does, and returns a conflict if the object has changed since it was read.
func ChangeStatus[T client.Object](ctx context.Context, c client.Client, o T, change func(T)) error {
	before, ok := o.DeepCopyObject().(T)
	if !ok {
		return fmt.Errorf("copying %T", o)
	}
	change(o)
	if equality.Semantic.DeepEqual(before, o) {
		return nil
	}
	err := c.Status().Patch(ctx, o, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
	return WrapWriteError(err, "writing the status of "+o.GetName())
}
