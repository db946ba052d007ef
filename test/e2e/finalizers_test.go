package e2e

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/test/cluster"
)

func TestOthersFinalizersAreKept(t *testing.T) {
	t.Parallel()
	c := cluster.New(t)
	api, err := client.New(c.Config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	o := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: "o"}}
	if err := api.Create(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeFinalizers(t, api, client.ObjectKeyFromObject(o)) })
	stale := o.DeepCopy()

	for _, f := range []string{"example.com/a", "example.com/b", "example.com/a"} {
		if err := kube.AddFinalizer(t.Context(), api, o, f); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{"example.com/a", "example.com/b"}, o.Finalizers); diff != "" {
		t.Error(diff)
	}
	if err := kube.AddFinalizer(t.Context(), api, stale, "example.com/c"); !kube.IsStale(err) {
		t.Errorf("a stale addition: %v", err)
	}
	stale.Finalizers = []string{"example.com/c"}
	if err := kube.RemoveFinalizer(t.Context(), api, stale, "example.com/c"); !kube.IsStale(err) {
		t.Errorf("a stale removal: %v", err)
	}
	if err := kube.RemoveFinalizer(t.Context(), api, o, "example.com/a"); err != nil {
		t.Fatal(err)
	}
	got := &corev1.ConfigMap{}
	if err := api.Get(t.Context(), client.ObjectKeyFromObject(o), got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"example.com/b"}, got.Finalizers); diff != "" {
		t.Error(diff)
	}
}

// removeFinalizers removes all finalizers, so that the namespace can be deleted.
func removeFinalizers(t *testing.T, api client.Client, key client.ObjectKey) {
	t.Helper()
	o := &corev1.ConfigMap{}
	if err := api.Get(context.Background(), key, o); err == nil {
		o.Finalizers = nil
		if err := api.Update(context.Background(), o); err != nil {
			t.Error(err)
		}
	}
}
