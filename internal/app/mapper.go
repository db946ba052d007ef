package app

import (
	"sync"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// A mapper remembers how kinds are served. A cache that is narrowed to namespaces
// asks at each read whether the kind has any, and to find that out anew costs more
// than the read. What a kind is served as does not change while a term lasts; one
// that is not served yet is asked for again.
type mapper struct {
	meta.RESTMapper

	mu    sync.RWMutex
	known map[schema.GroupVersionKind]*meta.RESTMapping
}

func remember(m meta.RESTMapper) *mapper {
	return &mapper{RESTMapper: m, known: map[schema.GroupVersionKind]*meta.RESTMapping{}}
}

// RESTMapping implements meta.RESTMapper.
func (m *mapper) RESTMapping(kind schema.GroupKind, versions ...string) (*meta.RESTMapping, error) {
	if len(versions) != 1 {
		return m.RESTMapper.RESTMapping(kind, versions...)
	}
	key := kind.WithVersion(versions[0])
	m.mu.RLock()
	found := m.known[key]
	m.mu.RUnlock()
	if found != nil {
		return found, nil
	}
	found, err := m.RESTMapper.RESTMapping(kind, versions...)
	if err == nil {
		m.mu.Lock()
		m.known[key] = found
		m.mu.Unlock()
	}
	return found, err
}
