package kube

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// pages is a reader that has one page for each token, and decodes it into the list that it
// gets.
type pages map[string]string

func (p pages) List(_ context.Context, list client.ObjectList, o ...client.ListOption) error {
	options := (&client.ListOptions{}).ApplyOptions(o)
	text, ok := p[options.Continue]
	if !ok || options.Limit != 2 || options.Namespace != "ns" {
		return errors.New("not what was expected")
	}
	return json.Unmarshal([]byte(text), list)
}

func (pages) Get(context.Context, client.ObjectKey, client.Object, ...client.GetOption) error {
	return errors.ErrUnsupported
}

func TestEachPage(t *testing.T) {
	reader := pages{
		"":     `{"metadata":{"continue":"more"},"items":[{"metadata":{"name":"a","labels":{"of":"a"}}},{"metadata":{"name":"b"}}]}`,
		"more": `{"metadata":{"continue":"last"},"items":[{"metadata":{"name":"c"}}]}`,
		"last": `{"metadata":{},"items":[{"metadata":{"name":"d","labels":{"of":"d"}}}]}`,
	}
	var names []string
	all := func(page *corev1.PodList) error {
		for i := range page.Items {
			name := page.Items[i].Name
			if of, ok := page.Items[i].Labels["of"]; ok && of != name {
				t.Errorf("%s has the labels of %s", name, of)
			}
			names = append(names, name)
		}
		return nil
	}
	if err := EachPage(t.Context(), reader, 2, all, client.InNamespace("ns")); err != nil {
		t.Fatal(err)
	}
	if want := []string{"a", "b", "c", "d"}; !slices.Equal(names, want) {
		t.Errorf("got %q, want %q", names, want)
	}
	stop := errors.New("stop")
	if err := EachPage(t.Context(), reader, 2, func(*corev1.PodList) error { return stop }, client.InNamespace("ns")); !errors.Is(err, stop) {
		t.Errorf("got %v, want the error of the function", err)
	}
	delete(reader, "last")
	if err := EachPage(t.Context(), reader, 2, all, client.InNamespace("ns")); err == nil {
		t.Error("an error of the second page is not returned")
	}
}
