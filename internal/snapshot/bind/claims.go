package bind

import (
	"context"
	"fmt"
	"slices"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// Hold implements Kind. That the cache shows the finalizer is not enough: it may
// just have been taken off for another snapshot.
func (k *single) Hold(ctx context.Context, sources []snapshot.Source) error {
	claim := sources[0].Claim
	release, err := k.turns.Take(ctx, string(claim.UID))
	if err != nil {
		return fmt.Errorf("waiting for claim %s: %w", claim.Name, err)
	}
	defer release()
	if slices.Contains(claim.Finalizers, snapshot.ClaimFinalizer) {
		var now *corev1.PersistentVolumeClaim
		if err := kube.Read(ctx, k.live, client.ObjectKeyFromObject(claim), &now); err != nil {
			return err
		}
		if now == nil || now.UID != claim.UID {
			return kube.Superseded("claim %s is another one now", claim.Name)
		}
		claim = now
	}
	return kube.Written(k.mark(ctx, claim, true), "protecting claim "+claim.Name)
}

// claims lets claims go that no snapshot needs any more: all of theirs are cut,
// or gone.
type claims struct{ *single }

// Reconcile takes our finalizer off a claim if nothing needs it there. The turn
// keeps a snapshot that is about to need it from relying on it.
func (c claims) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	var claim *corev1.PersistentVolumeClaim
	if err := kube.Read(ctx, c.client, request.NamespacedName, &claim); err != nil || claim == nil {
		return reconcile.Result{}, err
	}
	if !slices.Contains(claim.Finalizers, snapshot.ClaimFinalizer) {
		return reconcile.Result{}, nil
	}
	release, err := c.turns.Take(ctx, string(claim.UID))
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("waiting for claim %s: %w", claim.Name, err)
	}
	defer release()
	needed, err := c.needed(ctx, claim)
	if err != nil || needed {
		return reconcile.Result{}, err
	}
	err = kube.Written(c.mark(ctx, claim, false), "letting claim "+claim.Name+" go")
	if kube.IsSuperseded(err) {
		return reconcile.Result{RequeueAfter: c.options.RetryStart}, nil
	}
	return reconcile.Result{}, err
}

// mark puts our finalizer on a claim, or takes it off. Rights that were given to
// upstream's controller allow it to update claims, and not to patch them.
func (k *single) mark(ctx context.Context, claim *corev1.PersistentVolumeClaim, keep bool) error {
	set, change := kube.RemoveFinalizer, controllerutil.RemoveFinalizer
	if keep {
		set, change = kube.AddFinalizer, controllerutil.AddFinalizer
	}
	err := set(ctx, k.client, claim, snapshot.ClaimFinalizer)
	if !apierrors.IsForbidden(err) {
		return err
	}
	whole := &corev1.PersistentVolumeClaim{} // The cache's is reduced, and an update replaces everything.
	if err := k.live.Get(ctx, client.ObjectKeyFromObject(claim), whole); err != nil {
		return err
	}
	if whole.UID != claim.UID {
		return apierrors.NewNotFound(corev1.Resource("persistentvolumeclaims"), claim.Name)
	}
	if !change(whole, snapshot.ClaimFinalizer) {
		return nil
	}
	return k.client.Update(ctx, whole)
}

// needed tells whether a snapshot of the claim is not cut yet. The cache may not show
// that one has just been protected, which relies on the claim being so: that is
// asked of the API server.
func (c claims) needed(ctx context.Context, claim *corev1.PersistentVolumeClaim) (bool, error) {
	list := &snapshotv1.VolumeSnapshotList{}
	err := c.client.List(ctx, list, client.InNamespace(claim.Namespace), client.MatchingFields{snapshotsByClaim: claim.Name})
	if err != nil {
		return false, fmt.Errorf("listing the snapshots of claim %s: %w", claim.Name, err)
	}
	for i := range list.Items {
		one := &list.Items[i]
		if len(one.Finalizers) == 0 {
			if err := kube.Read(ctx, c.live, client.ObjectKeyFromObject(one), &one); err != nil {
				return false, err
			}
		}
		if needsClaim(one) {
			return true, nil
		}
	}
	return false, nil
}

// needsClaim tells whether a snapshot's claim must stay: its contents are not in
// the snapshot yet.
func needsClaim(s *snapshotv1.VolumeSnapshot) bool {
	return len(s.Finalizers) > 0 && !isCut(s) && !isMember(s)
}
