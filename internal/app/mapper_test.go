package app

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// asked counts what it is asked for.
type asked struct {
	*meta.DefaultRESTMapper
	times int
}

func (a *asked) RESTMapping(kind schema.GroupKind, versions ...string) (*meta.RESTMapping, error) {
	a.times++
	return a.DefaultRESTMapper.RESTMapping(kind, versions...)
}

func TestHowAKindIsServedIsAskedOnce(t *testing.T) {
	served := &asked{DefaultRESTMapper: meta.NewDefaultRESTMapper(nil)}
	m := remember(served)
	pod := corev1.SchemeGroupVersion.WithKind("Pod")
	for range 2 { // What is not served yet may be the next time.
		if _, err := m.RESTMapping(pod.GroupKind(), pod.Version); !meta.IsNoMatchError(err) {
			t.Fatalf("a kind is found that is not served: %v", err)
		}
	}
	served.Add(pod, meta.RESTScopeNamespace)
	for range 3 {
		found, err := m.RESTMapping(pod.GroupKind(), pod.Version)
		if err != nil || found.Scope.Name() != meta.RESTScopeNameNamespace {
			t.Fatalf("found is %+v, %v", found, err)
		}
	}
	if served.times != 3 {
		t.Errorf("it was asked for %d times", served.times)
	}
}
