package kube

import (
	"maps"
	"slices"
	"strings"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// maxCachedAnnotations bounds the annotations of one object in a cache, in bytes. An object
// may have 256 KiB of them, and whoever may create objects of a kind may create many.
const maxCachedAnnotations = 16 << 10

// knownDomains are the domains of the annotations that programs like this one read.
var knownDomains = []string{"kubernetes.io", "k8s.io", "holdfast.io", "checkpoint.example.com"}

// StripMetadata is the cache transform for kinds that need no other. It removes what no
// program of this kind reads: the history of fields, and the annotations of other people.
// Leases keep theirs, which are the pending operations; only those of this program are
// cached.
func StripMetadata(o any) (any, error) {
	object, err := meta.Accessor(o)
	if err != nil {
		return o, nil //nolint:nilerr // It is a tombstone or no object.
	}
	object.SetManagedFields(nil)
	if _, lease := o.(*coordinationv1.Lease); !lease {
		object.SetAnnotations(boundAnnotations(object.GetAnnotations(), isKnown))
	}
	return o, nil
}

// StripAnnotations removes the annotations of other people from the metadata of a cached
// object, and its history.
func StripAnnotations(m *metav1.ObjectMeta) {
	m.ManagedFields = nil
	m.Annotations = boundAnnotations(m.Annotations, isKnown)
}

// KeepAnnotations removes all annotations but some from the metadata of a cached object,
// and its history. It is for kinds that users write.
func KeepAnnotations(m *metav1.ObjectMeta, keys ...string) {
	m.ManagedFields = nil
	m.Annotations = boundAnnotations(m.Annotations, func(key string) bool { return slices.Contains(keys, key) })
}

// boundAnnotations returns those annotations that are kept, in the order of their keys as
// far as they have room. It returns nil if there are none.
func boundAnnotations(all map[string]string, isKept func(string) bool) map[string]string {
	var kept map[string]string
	room := maxCachedAnnotations
	for _, key := range slices.Sorted(maps.Keys(all)) {
		size := len(key) + len(all[key])
		if !isKept(key) || size > room {
			continue
		}
		room -= size
		if kept == nil {
			kept = map[string]string{}
		}
		kept[key] = all[key]
	}
	return kept
}

func isKnown(key string) bool {
	domain, _, _ := strings.Cut(key, "/")
	return key != corev1.LastAppliedConfigAnnotation && slices.ContainsFunc(knownDomains, func(known string) bool {
		return domain == known || strings.HasSuffix(domain, "."+known)
	})
}
