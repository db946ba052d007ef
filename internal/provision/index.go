package provision

import (
	"context"
	"fmt"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Indexes of the cache.
const (
	intentsByClaim = "provision.claim"
	claimsByClass  = "provision.class"
	volumesByClaim = "provision.claimUID"
)

// index has the cache answer what is asked for each claim without looking at
// all objects.
func (r *Reconciler) index(ctx context.Context, m ctrl.Manager) error {
	for _, index := range []struct {
		of    client.Object
		field string
		keys  client.IndexerFunc
	}{
		{&coordinationv1.Lease{}, intentsByClaim, annotated(claimAnnotation)},
		{&corev1.PersistentVolumeClaim{}, claimsByClass, r.waitsForClass},
		{&corev1.PersistentVolume{}, volumesByClaim, claimOfVolume},
	} {
		if err := m.GetFieldIndexer().IndexField(ctx, index.of, index.field, index.keys); err != nil {
			return fmt.Errorf("indexing %T by %s: %w", index.of, index.field, err)
		}
	}
	return nil
}

func (r *Reconciler) waitsForClass(o client.Object) []string {
	claim, ok := o.(*corev1.PersistentVolumeClaim)
	if !ok || !r.pending(claim) {
		return nil
	}
	return []string{className(claim)}
}

func claimOfVolume(o client.Object) []string {
	volume, ok := o.(*corev1.PersistentVolume)
	if !ok || volume.Spec.ClaimRef == nil || volume.Spec.ClaimRef.UID == "" {
		return nil
	}
	return []string{string(volume.Spec.ClaimRef.UID)}
}

// annotated indexes objects by the value of an annotation.
func annotated(key string) client.IndexerFunc {
	return func(o client.Object) []string {
		if value := o.GetAnnotations()[key]; value != "" {
			return []string{value}
		}
		return nil
	}
}
