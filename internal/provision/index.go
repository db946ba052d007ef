package provision

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/provision/pending"
	"github.com/holdfast-io/holdfast/internal/provision/source"
)

// Indexes of the cache. Package pending has those of Leases.
const (
	volumesByClaim = "provision.claimUID"

	// Claims that wait for a volume from us, by what they wait for.
	claimsByClass      = "provision.class"
	claimsBySource     = "provision.claimSource"
	claimsByGrantor    = "provision.grantor" // namespace whose ReferenceGrant they need
	claimsByAttributes = "provision.attributesClass"
	claimsByNode       = "provision.node"
)

// index adds the indexes to the cache.
func (r *Reconciler) index(ctx context.Context, m ctrl.Manager) error {
	if err := pending.IndexLeases(ctx, m); err != nil {
		return err
	}
	for _, index := range []struct {
		of    client.Object
		field string
		keys  client.IndexerFunc
	}{
		{&corev1.PersistentVolumeClaim{}, claimsByClass, r.indexWaiting(waitsForClass)},
		{&corev1.PersistentVolumeClaim{}, claimsBySource, r.indexWaiting(waitsForSource)},
		{&corev1.PersistentVolumeClaim{}, claimsByGrantor, r.indexWaiting(waitsForGrant)},
		{&corev1.PersistentVolumeClaim{}, claimsByAttributes, r.indexWaiting(waitsForAttributes)},
		{&corev1.PersistentVolumeClaim{}, claimsByNode, r.indexWaiting(waitsForNode)},
		{&corev1.PersistentVolume{}, volumesByClaim, claimOfVolume},
	} {
		if err := m.GetFieldIndexer().IndexField(ctx, index.of, index.field, index.keys); err != nil {
			return fmt.Errorf("indexing %T by %s: %w", index.of, index.field, err)
		}
	}
	return nil
}

// indexWaiting indexes the claims that wait for a volume from us, and only those.
func (r *Reconciler) indexWaiting(keys func(*corev1.PersistentVolumeClaim) []string) client.IndexerFunc {
	return func(o client.Object) []string {
		claim, ok := o.(*corev1.PersistentVolumeClaim)
		if !ok || !r.needsVolume(claim) {
			return nil
		}
		return keys(claim)
	}
}

func waitsForClass(claim *corev1.PersistentVolumeClaim) []string {
	return []string{kube.ClaimClass(claim)}
}

func claimOfVolume(o client.Object) []string {
	volume, ok := o.(*corev1.PersistentVolume)
	if !ok || volume.Spec.ClaimRef == nil || volume.Spec.ClaimRef.UID == "" {
		return nil
	}
	return []string{string(volume.Spec.ClaimRef.UID)}
}

// claimsWithoutVolume returns the claims that wait for a volume from a source and have
// none yet.
func (r *Reconciler) claimsWithoutVolume(ctx context.Context, from source.Source) ([]corev1.PersistentVolumeClaim, error) {
	claims := &corev1.PersistentVolumeClaimList{}
	if err := r.client.List(ctx, claims, client.MatchingFields{claimsBySource: from.Key()}); err != nil {
		return nil, fmt.Errorf("listing the claims that wait for a volume from %s: %w", from, err)
	}
	var waiting []corev1.PersistentVolumeClaim
	for _, claim := range claims.Items {
		volume, err := r.volumeForClaim(ctx, claim.UID)
		if err != nil {
			return nil, err
		}
		if volume == nil {
			waiting = append(waiting, claim)
		}
	}
	return waiting, nil
}
