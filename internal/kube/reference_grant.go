package kube

import (
	"context"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// ReferenceGrantList is the list kind of ReferenceGrant, of the Gateway API. Only a few of
// its fields are read, so its Go types are not worth a dependency.
var ReferenceGrantList = schema.GroupVersionKind{Group: "gateway.networking.k8s.io", Version: "v1beta1", Kind: "ReferenceGrantList"}

// A Referent is an object of another namespace that objects refer to.
type Referent struct {
	schema.GroupKind
	types.NamespacedName
}

// IsReferenceGranted reports whether a ReferenceGrant in the namespace of an object lets
// the objects of a kind in another namespace refer to it (KEP-3294, KEP-3766).
func IsReferenceGranted(ctx context.Context, reader client.Reader, from schema.GroupKind, namespace string, to Referent) (bool, error) {
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(ReferenceGrantList)
	err := reader.List(ctx, list, client.InNamespace(to.Namespace))
	if meta.IsNoMatchError(err) {
		return false, nil // Without the CRD there are no grants.
	}
	if err != nil {
		return false, fmt.Errorf("reading the ReferenceGrants of namespace %s: %w", to.Namespace, err)
	}
	for i := range list.Items {
		if grantOf(list.Items[i]).permits(grantFrom{from.Group, from.Kind, namespace}, to) {
			return true, nil
		}
	}
	return false, nil
}

// A grant is a ReferenceGrant: objects of the entries in from may refer to objects
// of the entries in to.
type grant struct {
	from []grantFrom
	to   []grantTo
}

type grantFrom struct{ group, kind, namespace string }

type grantTo struct{ group, kind, name string } // An empty name means all.

func grantOf(o unstructured.Unstructured) grant {
	var g grant
	for _, from := range entries(o, "from") {
		g.from = append(g.from, grantFrom{from["group"], from["kind"], from["namespace"]})
	}
	for _, to := range entries(o, "to") {
		g.to = append(g.to, grantTo{to["group"], to["kind"], to["name"]})
	}
	return g
}

// entries reads a list of objects in spec whose fields are strings.
func entries(o unstructured.Unstructured, field string) []map[string]string {
	list, _, err := unstructured.NestedSlice(o.Object, "spec", field)
	if err != nil {
		return nil // The API server validates the type; an invalid entry grants nothing.
	}
	var all []map[string]string
	for _, item := range list {
		fields, ok := item.(map[string]any)
		if !ok {
			continue
		}
		entry := map[string]string{}
		for key, value := range fields {
			if text, ok := value.(string); ok {
				entry[key] = text
			}
		}
		all = append(all, entry)
	}
	return all
}

// permits reports whether objects of an entry in from may refer to an object.
func (g grant) permits(from grantFrom, to Referent) bool {
	return slices.Contains(g.from, from) && slices.ContainsFunc(g.to, func(entry grantTo) bool {
		return entry.group == to.Group && entry.kind == to.Kind && (entry.name == "" || entry.name == to.Name)
	})
}
