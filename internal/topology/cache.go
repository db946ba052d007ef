package topology

import (
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// CacheOptions reduce nodes in the cache to their metadata: specs and statuses,
// with their lists of images, are many times as large and not used. It may be
// called more than once.
func CacheOptions(into *cache.Options) {
	if into.ByObject == nil {
		into.ByObject = map[client.Object]cache.ByObject{}
	}
	for o := range into.ByObject {
		if _, ok := o.(*corev1.Node); ok {
			return
		}
	}
	into.ByObject[&corev1.Node{}] = cache.ByObject{Transform: reduce}
}

// reduce is the transform for nodes. It may change the object, because nothing else
// has it yet.
func reduce(o any) (any, error) {
	if node, ok := o.(*corev1.Node); ok {
		node.ManagedFields, node.Annotations = nil, nil
		node.Spec, node.Status = corev1.NodeSpec{}, corev1.NodeStatus{}
	}
	return o, nil
}
