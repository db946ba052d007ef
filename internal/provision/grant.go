package provision

import (
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// A grant is what matters of a ReferenceGrant: whoever is in from may refer to
// whatever is in to.
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

// entries reads a list of objects of strings in spec.
func entries(o unstructured.Unstructured, field string) []map[string]string {
	list, _, err := unstructured.NestedSlice(o.Object, "spec", field)
	if err != nil {
		return nil // The API server has checked the type; anything else grants nothing.
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

// allows tells whether claims of a namespace may use the source.
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
