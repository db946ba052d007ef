package kube

import (
	"context"
	"fmt"

	"sigs.k8s.io/controller-runtime/pkg/client"
)

// GetIfExists reads an object into *into. If the object does not exist, or the key has no
// name, *into is unchanged.
func GetIfExists[T any, P interface {
	*T
	client.Object
}](ctx context.Context, from client.Reader, key client.ObjectKey, into *P, o ...client.GetOption) error {
	object := P(new(T))
	if key.Name == "" {
		return nil
	}
	if err := from.Get(ctx, key, object, o...); err != nil {
		if client.IgnoreNotFound(err) == nil {
			return nil
		}
		return fmt.Errorf("reading %T %s: %w", object, key, err)
	}
	*into = object
	return nil
}
