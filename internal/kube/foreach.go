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

// ForEach shows all objects of a kind that a cache holds, as the cache has them: they
// must not be changed. It is for whoever counts very many: a list has a copy of
// each, even where no deep one is asked for. Only of a kind that the cache has of
// some namespaces a list is made after all.
func ForEach[P client.Object](ctx context.Context, in cache.Cache, kind P, list client.ObjectList, show func(P)) error {
	informer, err := in.GetInformer(ctx, kind)
	if err != nil {
		return fmt.Errorf("finding the cache of %T: %w", kind, err)
	}
	whole, ok := informer.(interface{ GetStore() toolscache.Store })
	if !ok {
		if err := in.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
			return fmt.Errorf("listing %T: %w", kind, err)
		}
		return meta.EachListItem(list, func(o runtime.Object) error {
			show(o.(P)) //nolint:forcetypeassert // It is of the list's kind.
			return nil
		})
	}
	for _, o := range whole.GetStore().List() {
		show(o.(P)) //nolint:forcetypeassert // See above.
	}
	return nil
}
