package source

import (
	"context"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// GrantList is the list kind of ReferenceGrant, of the Gateway API. Only four of its
// fields are read, so its Go types are not worth a dependency.
var GrantList = schema.GroupVersionKind{Group: "gateway.networking.k8s.io", Version: "v1beta1", Kind: "ReferenceGrantList"}

// isGranted reports whether a ReferenceGrant in the source's namespace lets claims
// of a namespace use the source (KEP-3294).
func (r *Resolver) isGranted(ctx context.Context, from Source, namespace string) (bool, error) {
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(GrantList)
	err := r.Reader.List(ctx, list, client.InNamespace(from.Namespace))
	if meta.IsNoMatchError(err) {
		return false, nil // Without the CRD there are no grants.
	}
	if err != nil {
		return false, fmt.Errorf("reading the ReferenceGrants of namespace %s: %w", from.Namespace, err)
	}
	for i := range list.Items {
		if grantOf(list.Items[i]).allows(from, namespace) {
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

// allows reports whether claims of a namespace may use the source.
func (g grant) allows(what Source, namespace string) bool {
	group := ""
	if what.Kind == KindSnapshot {
		group = GroupSnapshot
	}
	return slices.Contains(g.from, grantFrom{"", KindClaim, namespace}) &&
		slices.ContainsFunc(g.to, func(to grantTo) bool {
			return to.group == group && to.kind == what.Kind && (to.name == "" || to.name == what.Name)
		})
}
