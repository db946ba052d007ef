package kube

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// ForEach calls f for all objects of a kind in the cache. It does not copy them, so f
// must not change them. It is for statistics over very many objects: List copies every
// object, at least shallowly, even with UnsafeDisableDeepCopy. A cache that is
// restricted to namespaces has no single store, so there ForEach lists.
func ForEach[P client.Object](ctx context.Context, in cache.Cache, kind P, list client.ObjectList, f func(P)) error {
	informer, err := in.GetInformer(ctx, kind)
	if err != nil {
		return fmt.Errorf("getting the informer of %T: %w", kind, err)
	}
	store, ok := informer.(interface{ GetStore() toolscache.Store })
	if !ok {
		if err := in.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
			return fmt.Errorf("listing %T: %w", kind, err)
		}
		return meta.EachListItem(list, func(o runtime.Object) error {
			f(o.(P)) //nolint:forcetypeassert // It is of the list's kind.
			return nil
		})
	}
	for _, o := range store.GetStore().List() {
		f(o.(P)) //nolint:forcetypeassert // See above.
	}
	return nil
}
