package world

import (
	"context"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// noFinalizers is a merge patch that removes all finalizers.
const noFinalizers = `{"metadata":{"finalizers":null}}`

// RemoveFinalizers is a patch that removes all finalizers of an object.
var RemoveFinalizers = client.RawPatch(types.MergePatchType, []byte(noFinalizers))

// ForceDelete removes an object's finalizers and deletes it. It succeeds if the object
// is gone already.
func ForceDelete(ctx context.Context, api client.Client, object client.Object) error {
	if err := client.IgnoreNotFound(api.Patch(ctx, object, RemoveFinalizers)); err != nil {
		return err
	}
	return client.IgnoreNotFound(api.Delete(ctx, object))
}

// createForTest creates an object and deletes it when the test ends.
func createForTest(t testing.TB, api client.Client, object client.Object) {
	t.Helper()
	if err := api.Create(t.Context(), object); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := api.Delete(context.Background(), object); client.IgnoreNotFound(err) != nil {
			t.Error(err)
		}
	})
}

// objectClient is the part of a typed client that create and delete use.
type objectClient[T metav1.Object] interface {
	Create(ctx context.Context, object T, o metav1.CreateOptions) (T, error)
	Patch(ctx context.Context, name string, kind types.PatchType, patch []byte, o metav1.PatchOptions, subresources ...string) (T, error)
	Delete(ctx context.Context, name string, o metav1.DeleteOptions) error
}

// A deleteFunc deletes an object. It succeeds if the object is gone already.
type deleteFunc[T metav1.Object] func(ctx context.Context, t testing.TB, of objectClient[T], name string)

// create creates an object and deletes it when the test ends.
func create[T metav1.Object](t testing.TB, of objectClient[T], remove deleteFunc[T], object T) T {
	t.Helper()
	made, err := of.Create(t.Context(), object, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { remove(context.Background(), t, of, made.GetName()) })
	return made
}

// deleteObject is a [deleteFunc] that does not wait for finalizers.
func deleteObject[T metav1.Object](ctx context.Context, t testing.TB, of objectClient[T], name string) {
	t.Helper()
	if err := of.Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		t.Error(err)
	}
}

// forceDelete is a [deleteFunc] that removes the finalizers first.
func forceDelete[T metav1.Object](ctx context.Context, t testing.TB, of objectClient[T], name string) {
	t.Helper()
	_, err := of.Patch(ctx, name, types.MergePatchType, []byte(noFinalizers), metav1.PatchOptions{})
	if err == nil {
		err = of.Delete(ctx, name, metav1.DeleteOptions{})
	}
	if err != nil && !apierrors.IsNotFound(err) {
		t.Error(err)
	}
}
