package kube

import (
	"context"
	"fmt"

	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// EnsureInformers starts informers for kinds that no controller watches. Otherwise the
// cache would list them at the first read, while a user waits.
func EnsureInformers(ctx context.Context, m ctrl.Manager, kinds ...client.Object) error {
	for _, kind := range kinds {
		if _, err := m.GetCache().GetInformer(ctx, kind); err != nil {
			return fmt.Errorf("watching %T: %w", kind, err)
		}
	}
	return nil
}
