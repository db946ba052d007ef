package world

import (
	"context"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// objectClient are what a client offers for one kind of object.
type objectClient[T metav1.Object] interface {
	Create(ctx context.Context, object T, o metav1.CreateOptions) (T, error)
	Patch(ctx context.Context, name string, kind types.PatchType, patch []byte, o metav1.PatchOptions, subresources ...string) (T, error)
	Delete(ctx context.Context, name string, o metav1.DeleteOptions) error
}

// A deleteFunc takes an object away. One that is gone is fine.
type deleteFunc[T metav1.Object] func(ctx context.Context, t testing.TB, of objectClient[T], name string)

// create makes an object that goes with the test.
func create[T metav1.Object](t testing.TB, of objectClient[T], remove deleteFunc[T], object T) T {
	t.Helper()
	made, err := of.Create(t.Context(), object, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { remove(context.Background(), t, of, made.GetName()) })
	return made
}

// deleteObject is a [removal] that asks for it.
func deleteObject[T metav1.Object](ctx context.Context, t testing.TB, of objectClient[T], name string) {
	t.Helper()
	if err := of.Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		t.Error(err)
	}
}

// forceDelete is a [removal] that waits for nobody whose finalizer is there.
func forceDelete[T metav1.Object](ctx context.Context, t testing.TB, of objectClient[T], name string) {
	t.Helper()
	_, err := of.Patch(ctx, name, types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
	if err == nil {
		err = of.Delete(ctx, name, metav1.DeleteOptions{})
	}
	if err != nil && !apierrors.IsNotFound(err) {
		t.Error(err)
	}
}
