package controller

import (
	"context"
	"fmt"
	"slices"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/internal/keymutex"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// Claims is all there is about the protection of claims while snapshots are taken of
// them, for single snapshots and for groups: it adds our finalizer, and removes it when
// nobody needs the claim. It is a reconciler of claims; what ends a need wakes them.
type Claims struct {
	client     client.Client
	apiReader  client.Reader // past the cache
	retryAfter time.Duration
	groups     *Groups            // nil where there are no group snapshots
	keyMutex   *keymutex.KeyMutex // by claim, for its finalizer
	controller controller.Controller
}

// unwatched is how long a claim rests that is needed while it is not known yet whether
// groups can be watched: until then nothing tells of their end.
const unwatched = 10 * time.Second

// NewClaims makes it, with a client that reads from a cache and one that does not.
// What was superseded is tried again after a pause.
func NewClaims(c client.Client, apiReader client.Reader, groups *Groups, retryAfter time.Duration) *Claims {
	return &Claims{client: c, apiReader: apiReader, groups: groups, retryAfter: retryAfter, keyMutex: &keymutex.KeyMutex{}}
}

// AddFinalizers puts our finalizer on claims, and has nobody take it off until done is called:
// by then there must be something that says who needs them. Claims of a namespace
// must come in one order, as by name.
func (c *Claims) AddFinalizers(ctx context.Context, sources []snapshot.Source) (unlock func(), err error) {
	var unlocks []func()
	unlock = func() {
		for _, unlock := range unlocks {
			unlock()
		}
	}
	for i := range sources {
		unlock, err := c.lock(ctx, sources[i].Claim)
		if err == nil {
			unlocks = append(unlocks, unlock)
			err = c.addFinalizer(ctx, sources[i].Claim)
		}
		if err != nil {
			unlock()
			return nil, err
		}
	}
	return unlock, nil
}

// addFinalizer puts our finalizer on one claim. That the cache shows it there is not enough:
// it may just have been taken off for another snapshot.
func (c *Claims) addFinalizer(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	if hasFinalizer(claim) {
		var current *corev1.PersistentVolumeClaim
		if err := kube.GetIfExists(ctx, c.apiReader, client.ObjectKeyFromObject(claim), &current); err != nil {
			return err
		}
		if current == nil || current.UID != claim.UID {
			return kube.Conflict("claim %s is another one now", claim.Name)
		}
		claim = current
	}
	return kube.WrapWriteError(c.setFinalizer(ctx, claim, true), "protecting claim "+claim.Name)
}

// removeFinalizerIfUnneeded takes our finalizer off a claim unless a snapshot or a group needs it there.
// The turn keeps a snapshot that is about to need it from relying on it.
func (c *Claims) removeFinalizerIfUnneeded(ctx context.Context, claim *corev1.PersistentVolumeClaim) (needed bool, err error) {
	unlock, err := c.lock(ctx, claim)
	if err != nil {
		return false, err
	}
	defer unlock()
	needed, err = c.isNeeded(ctx, claim)
	if err != nil || needed {
		return needed, err
	}
	return false, kube.WrapWriteError(c.setFinalizer(ctx, claim, false), "letting claim "+claim.Name+" go")
}

func (c *Claims) lock(ctx context.Context, claim *corev1.PersistentVolumeClaim) (unlock func(), err error) {
	if unlock, err = c.keyMutex.Lock(ctx, client.ObjectKeyFromObject(claim).String()); err != nil {
		return nil, fmt.Errorf("waiting for claim %s: %w", claim.Name, err)
	}
	return unlock, nil
}

// Reconcile frees a claim.
func (c *Claims) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	var claim *corev1.PersistentVolumeClaim
	if err := kube.GetIfExists(ctx, c.client, request.NamespacedName, &claim); err != nil || claim == nil || !hasFinalizer(claim) {
		return reconcile.Result{}, err
	}
	needed, err := c.removeFinalizerIfUnneeded(ctx, claim)
	switch {
	case kube.IsConflict(err):
		return reconcile.Result{RequeueAfter: c.retryAfter}, nil
	case err == nil && needed && c.groups != nil && c.groups.working() == nil:
		return reconcile.Result{RequeueAfter: unwatched}, nil
	default:
		return reconcile.Result{}, err
	}
}

func hasFinalizer(claim client.Object) bool {
	return slices.Contains(claim.GetFinalizers(), snapshot.ClaimFinalizer)
}

// setFinalizer puts our finalizer on a claim, or takes it off. Rights that were given to
// upstream's controller allow it to update claims, and not to patch them.
func (c *Claims) setFinalizer(ctx context.Context, claim *corev1.PersistentVolumeClaim, add bool) error {
	patch, change := kube.RemoveFinalizer, controllerutil.RemoveFinalizer
	if add {
		patch, change = kube.AddFinalizer, controllerutil.AddFinalizer
	}
	err := patch(ctx, c.client, claim, snapshot.ClaimFinalizer)
	if !apierrors.IsForbidden(err) {
		return err
	}
	full := &corev1.PersistentVolumeClaim{} // The cache's is reduced, and an update replaces everything.
	if err := c.apiReader.Get(ctx, client.ObjectKeyFromObject(claim), full); err != nil {
		return err
	}
	if full.UID != claim.UID {
		return apierrors.NewNotFound(corev1.Resource("persistentvolumeclaims"), claim.Name)
	}
	if !change(full, snapshot.ClaimFinalizer) {
		return nil
	}
	return c.client.Update(ctx, full)
}

// isNeeded tells whether a snapshot of the claim is not cut yet, or a group of which it
// is part. The cache may not show that one has just been protected, which relies on
// the claim being so: that is asked of the API server.
func (c *Claims) isNeeded(ctx context.Context, claim *corev1.PersistentVolumeClaim) (bool, error) {
	list := &snapshotv1.VolumeSnapshotList{}
	err := c.client.List(ctx, list, client.InNamespace(claim.Namespace), client.MatchingFields{snapshotsByClaim: claim.Name})
	if err != nil {
		return false, fmt.Errorf("listing the snapshots of claim %s: %w", claim.Name, err)
	}
	for i := range list.Items {
		s := &list.Items[i]
		if len(s.Finalizers) == 0 {
			if err := kube.GetIfExists(ctx, c.apiReader, client.ObjectKeyFromObject(s), &s); err != nil {
				return false, err
			}
		}
		if needsClaim(s) && snapshot.MatchesClaim(s, claim) {
			return true, nil
		}
	}
	return c.groups.needs(ctx, claim)
}

// needsClaim tells whether a snapshot's claim must stay: its contents are not in
// the snapshot yet.
func needsClaim(s *snapshotv1.VolumeSnapshot) bool {
	return len(s.Finalizers) > 0 && !isTaken(s) && !isMember(s)
}
