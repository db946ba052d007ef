package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// conflict says that the object is not the one that was seen any more. Nobody
// needs to be told: it is looked at again soon.
type conflict struct{ error }

// Unwrap returns what the API server said.
func (s conflict) Unwrap() error { return s.error }

// Conflict makes an error that only says that an object is not the one that
// was seen any more.
func Conflict(format string, args ...any) error { return conflict{fmt.Errorf(format, args...)} }

// IsConflict tells whether an error only says that. One that is joined with
// another says more.
func IsConflict(err error) bool {
	_, only := err.(conflict) //nolint:errorlint // See above.
	return only
}

// RetryAfterConflict is the pause after a write that only met another one: at most a second,
// however long the first one after a failure shall be, for this is none.
func RetryAfterConflict(afterFailure time.Duration) time.Duration {
	return min(afterFailure, time.Second)
}

// WrapWriteError wraps the error of writing to an object as it was seen.
func WrapWriteError(err error, verb string) error {
	switch {
	case err == nil:
		return nil
	case IsConflictResponse(err):
		return conflict{err}
	default:
		return fmt.Errorf("%s: %w", verb, err)
	}
}

// MergePatch changes single fields of an object by a merge patch (RFC 7386), which
// keeps those that this program does not know.
func MergePatch(ctx context.Context, c client.Client, o client.Object, change map[string]any) error {
	patch, err := json.Marshal(change)
	if err != nil {
		return fmt.Errorf("encoding a change of %s: %w", o.GetName(), err)
	}
	return c.Patch(ctx, o, client.RawPatch(types.MergePatchType, patch))
}

// PatchStatus changes single fields of an object's status, if it is still the
// object that was seen, and not one that has taken its name.
func PatchStatus(ctx context.Context, c client.Client, o client.Object, status any) error {
	return mergeStatus(ctx, c, o, map[string]any{"uid": o.GetUID()}, status)
}

func mergeStatus(ctx context.Context, c client.Client, o client.Object, condition map[string]any, status any) error {
	patch, err := json.Marshal(map[string]any{"metadata": condition, "status": status})
	if err != nil {
		return fmt.Errorf("encoding the status of %s: %w", o.GetName(), err)
	}
	return c.Status().Patch(ctx, o, client.RawPatch(types.MergePatchType, patch))
}

// PatchStatusIfUnchanged changes single fields of an object's status, if nothing else
// of the object has changed since it was seen.
func PatchStatusIfUnchanged(ctx context.Context, c client.Client, o client.Object, status any) error {
	return mergeStatus(ctx, c, o, map[string]any{"uid": o.GetUID(), "resourceVersion": o.GetResourceVersion()}, status)
}
