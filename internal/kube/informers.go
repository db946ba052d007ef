package kube

import (
	"context"
	"fmt"

	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// EnsureInformers has the manager's cache hold some kinds from its start on. Without it a
// kind that no controller watches is fetched at the first read, while a user
// waits for it.
func EnsureInformers(ctx context.Context, m ctrl.Manager, kinds ...client.Object) error {
	for _, kind := range kinds {
		if _, err := m.GetCache().GetInformer(ctx, kind); err != nil {
			return fmt.Errorf("watching %T: %w", kind, err)
		}
	}
	return nil
}
