package provision

import (
	"context"
	"fmt"

	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// getUncached reads past the cache; it reports whether the object exists.
func (r *Reconciler) getUncached(ctx context.Context, key types.NamespacedName, into client.Object) (bool, error) {
	err := r.apiReader.Get(ctx, key, into)
	if client.IgnoreNotFound(err) != nil {
		return false, fmt.Errorf("reading %s: %w", key, err)
	}
	return err == nil, nil
}

// readAttributesClass reads the attributes class that a claim names.
func (r *Reconciler) readAttributesClass(ctx context.Context, name string) (*storagev1.VolumeAttributesClass, error) {
	class := &storagev1.VolumeAttributesClass{}
	there, err := r.getUncached(ctx, types.NamespacedName{Name: name}, class)
	switch {
	case err != nil:
		return nil, err
	case !there:
		return nil, fmt.Errorf("VolumeAttributesClass %q of the claim does not exist", name)
	case class.DriverName != r.options.Driver:
		return nil, fmt.Errorf("VolumeAttributesClass %q is for driver %s, and the StorageClass is of driver %s", name, class.DriverName, r.options.Driver)
	}
	return class, nil
}
