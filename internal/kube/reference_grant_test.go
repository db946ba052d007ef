package kube

import (
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

func TestReferenceGrants(t *testing.T) {
	snapshot := Referent{schema.GroupKind{Group: "snapshot.storage.k8s.io", Kind: "VolumeSnapshot"}, types.NamespacedName{Namespace: "other", Name: "before"}}
	entry := func(pairs ...any) map[string]any {
		m := map[string]any{}
		for i := 0; i < len(pairs); i += 2 {
			m[pairs[i].(string)] = pairs[i+1] //nolint:forcetypeassert // Keys are strings.
		}
		return m
	}
	claims := entry("group", "", "kind", "PersistentVolumeClaim", "namespace", "team")
	snapshots := entry("group", "snapshot.storage.k8s.io", "kind", "VolumeSnapshot")
	tests := map[string]struct {
		from, to []any
		want     bool
	}{
		"all snapshots":                {[]any{claims}, []any{snapshots}, true},
		"this snapshot":                {[]any{claims}, []any{entry("group", "snapshot.storage.k8s.io", "kind", "VolumeSnapshot", "name", "before")}, true},
		"another snapshot":             {[]any{claims}, []any{entry("group", "snapshot.storage.k8s.io", "kind", "VolumeSnapshot", "name", "after")}, false},
		"one of several":               {[]any{entry("kind", "Pod"), claims}, []any{entry("kind", "Secret"), snapshots}, true},
		"another kind":                 {[]any{claims}, []any{entry("group", "", "kind", "PersistentVolumeClaim")}, false},
		"another group":                {[]any{claims}, []any{entry("group", "example.com", "kind", "VolumeSnapshot")}, false},
		"another namespace":            {[]any{entry("group", "", "kind", "PersistentVolumeClaim", "namespace", "x")}, []any{snapshots}, false},
		"another kind that refers":     {[]any{entry("group", "", "kind", "Pod", "namespace", "team")}, []any{snapshots}, false},
		"nothing":                      {nil, nil, false},
		"something that is no grant":   {[]any{"team"}, []any{snapshots}, false},
		"a namespace that is a number": {[]any{entry("group", "", "kind", "PersistentVolumeClaim", "namespace", int64(1))}, []any{snapshots}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			o := unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"from": tt.from, "to": tt.to}}}
			if got := grantOf(o).permits(grantFrom{"", "PersistentVolumeClaim", "team"}, snapshot); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}
