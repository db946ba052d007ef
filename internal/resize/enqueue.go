package resize

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// requestsForClaim enqueues a claim if there is something to do for it.
func (r *Reconciler) requestsForClaim(ctx context.Context, o client.Object) []reconcile.Request {
	return r.requestIfDue(ctx, client.ObjectKeyFromObject(o))
}

// requestsForVolume enqueues a volume's claim if there is something to do for
// it. So it does not matter whether the claim or the volume reaches the cache
// first.
func (r *Reconciler) requestsForVolume(ctx context.Context, o client.Object) []reconcile.Request {
	volume, ok := o.(*corev1.PersistentVolume)
	if !ok || volume.Spec.ClaimRef == nil {
		return nil
	}
	return r.requestIfDue(ctx, types.NamespacedName{Namespace: volume.Spec.ClaimRef.Namespace, Name: volume.Spec.ClaimRef.Name})
}

// requestsForClass enqueues the claims that wait for a class.
func (r *Reconciler) requestsForClass(ctx context.Context, o client.Object) []reconcile.Request {
	claims := &corev1.PersistentVolumeClaimList{}
	if err := r.client.List(ctx, claims, client.MatchingFields{claimsByClass: o.GetName()}); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Listing the claims of a class failed", "class", o.GetName())
		return nil
	}
	var all []reconcile.Request
	for i := range claims.Items {
		all = append(all, r.requestsForClaim(ctx, &claims.Items[i])...)
	}
	return all
}

// requestIfDue enqueues a claim if there is something to do for it according to
// the cache. Claims of other drivers are never enqueued.
func (r *Reconciler) requestIfDue(ctx context.Context, key types.NamespacedName) []reconcile.Request {
	s, err := r.observe(ctx, r.client, key)
	if err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Reading a claim failed", "claim", key)
		return nil
	}
	if s.volume == nil || decideExpansion(s, r.options, r.now()).action == none && decideModification(s, r.options, r.now()).action == none {
		return nil
	}
	return []reconcile.Request{{NamespacedName: key}}
}
