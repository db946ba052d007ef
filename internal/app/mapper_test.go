package app

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// countingMapper counts lookups.
type countingMapper struct {
	*meta.DefaultRESTMapper
	lookups int
}

func (m *countingMapper) RESTMapping(kind schema.GroupKind, versions ...string) (*meta.RESTMapping, error) {
	m.lookups++
	return m.DefaultRESTMapper.RESTMapping(kind, versions...)
}

func TestAMappingIsLookedUpOnce(t *testing.T) {
	installed := &countingMapper{DefaultRESTMapper: meta.NewDefaultRESTMapper(nil)}
	m := newCachingMapper(installed)
	pod := corev1.SchemeGroupVersion.WithKind("Pod")
	for range 2 { // A kind that is not installed may be installed the next time.
		if _, err := m.RESTMapping(pod.GroupKind(), pod.Version); !meta.IsNoMatchError(err) {
			t.Fatalf("found a kind that is not installed: %v", err)
		}
	}
	installed.Add(pod, meta.RESTScopeNamespace)
	for range 3 {
		found, err := m.RESTMapping(pod.GroupKind(), pod.Version)
		if err != nil || found.Scope.Name() != meta.RESTScopeNameNamespace {
			t.Fatalf("got %+v, %v", found, err)
		}
	}
	if installed.lookups != 3 {
		t.Errorf("the mapping was looked up %d times, want 3", installed.lookups)
	}
}
