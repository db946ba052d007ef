package world

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// InstallCRDs installs the output of "holdfast crds" for volumes as its help says, and
// returns when the API server serves all of it. The CRDs stay installed, because other tests
// may use them. In a cluster of its own a test may pass functions that change a CRD,
// or leave it out.
func InstallCRDs(t testing.TB, config *rest.Config, changes ...func(*unstructured.Unstructured) (install bool)) {
	t.Helper()
	c, err := client.New(config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	all, err := printedCRDs(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	// The test of checkpoints installs theirs, and deletes them while others run.
	all = slices.DeleteFunc(all, func(crd *unstructured.Unstructured) bool {
		return strings.HasSuffix(crd.GetName(), ".checkpoint.example.com")
	})
	for _, change := range changes {
		all = slices.DeleteFunc(all, func(crd *unstructured.Unstructured) bool { return !change(crd) })
	}
	applyCRDs(t, c, all)
}

// applyCRDs returns when the API server serves all of them.
func applyCRDs(t testing.TB, c client.Client, all []*unstructured.Unstructured) {
	t.Helper()
	for _, crd := range all {
		if err := c.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(crd), client.FieldOwner("kubectl"), client.ForceOwnership); err != nil {
			t.Fatalf("applying %s: %v", crd.GetName(), err)
		}
	}
	for _, crd := range all {
		Eventually(t, func(ctx context.Context) error { return crdServed(ctx, c, crd) })
	}
}

// printedCRDs returns the objects that "holdfast crds" prints: those of one API group, or
// all.
func printedCRDs(ctx context.Context, group string) ([]*unstructured.Unstructured, error) {
	programs, err := Programs()
	if err != nil {
		return nil, err
	}
	out, err := exec.CommandContext(ctx, filepath.Join(programs, "holdfast"), "crds", "--group="+group).Output()
	if err != nil {
		return nil, fmt.Errorf("running holdfast crds: %w", err)
	}
	var all []*unstructured.Unstructured
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(out), len(out))
	for {
		crd := &unstructured.Unstructured{}
		err := decoder.Decode(&crd.Object)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading the output of holdfast crds: %w", err)
		}
		all = append(all, crd)
	}
}

// crdServed returns nil if the API server serves all versions of a CRD that are marked
// as served.
func crdServed(ctx context.Context, c client.Client, crd *unstructured.Unstructured) error {
	group, _, _ := unstructured.NestedString(crd.Object, "spec", "group")
	kind, _, _ := unstructured.NestedString(crd.Object, "spec", "names", "listKind")
	versions, _, err := unstructured.NestedSlice(crd.Object, "spec", "versions")
	if err != nil {
		return err
	}
	for _, version := range versions {
		v, ok := version.(map[string]any)
		if !ok || v["served"] != true {
			continue
		}
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(schema.GroupVersionKind{Group: group, Version: fmt.Sprint(v["name"]), Kind: kind})
		if err := c.List(ctx, list, client.Limit(1)); err != nil {
			return fmt.Errorf("listing %s of %s: %w", kind, list.GetAPIVersion(), err)
		}
	}
	return nil
}
