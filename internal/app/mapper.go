package app

import (
	"sync"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// A cachingMapper caches REST mappings. A cache that is restricted to namespaces looks
// up at each read whether the kind is namespaced, and the lookup in
// controller-runtime's mapper costs more than the read. A mapping does not change
// during a term. A kind that is not installed is looked up again.
type cachingMapper struct {
	meta.RESTMapper

	mu     sync.RWMutex
	cached map[schema.GroupVersionKind]*meta.RESTMapping
}

func newCachingMapper(m meta.RESTMapper) *cachingMapper {
	return &cachingMapper{RESTMapper: m, cached: map[schema.GroupVersionKind]*meta.RESTMapping{}}
}

// RESTMapping implements meta.RESTMapper.
func (m *cachingMapper) RESTMapping(kind schema.GroupKind, versions ...string) (*meta.RESTMapping, error) {
	if len(versions) != 1 {
		return m.RESTMapper.RESTMapping(kind, versions...)
	}
	key := kind.WithVersion(versions[0])
	m.mu.RLock()
	found := m.cached[key]
	m.mu.RUnlock()
	if found != nil {
		return found, nil
	}
	found, err := m.RESTMapper.RESTMapping(kind, versions...)
	if err == nil {
		m.mu.Lock()
		m.cached[key] = found
		m.mu.Unlock()
	}
	return found, err
}
