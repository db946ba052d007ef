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
	live       client.Reader // past the cache
	pause      time.Duration
	groups     *Groups            // nil where there are no group snapshots
	keyMutex   *keymutex.KeyMutex // by claim, for its finalizer
	controller controller.Controller
}

// unwatched is how long a claim rests that is needed while it is not known yet whether
// groups can be watched: until then nothing tells of their end.
const unwatched = 10 * time.Second

// NewClaims makes it, with a client that reads from a cache and one that does not.
// What was superseded is tried again after a pause.
func NewClaims(cached client.Client, live client.Reader, groups *Groups, pause time.Duration) *Claims {
	return &Claims{client: cached, live: live, groups: groups, pause: pause, keyMutex: &keymutex.KeyMutex{}}
}

// Hold puts our finalizer on claims, and has nobody take it off until done is called:
// by then there must be something that says who needs them. Claims of a namespace
// must come in one order, as by name.
func (c *Claims) Hold(ctx context.Context, sources []snapshot.Source) (done func(), err error) {
	var held []func()
	done = func() {
		for _, release := range held {
			release()
		}
	}
	for i := range sources {
		release, err := c.turn(ctx, sources[i].Claim)
		if err == nil {
			held = append(held, release)
			err = c.hold(ctx, sources[i].Claim)
		}
		if err != nil {
			done()
			return nil, err
		}
	}
	return done, nil
}

// hold puts our finalizer on one claim. That the cache shows it there is not enough:
// it may just have been taken off for another snapshot.
func (c *Claims) hold(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	if isKept(claim) {
		var now *corev1.PersistentVolumeClaim
		if err := kube.GetIfExists(ctx, c.live, client.ObjectKeyFromObject(claim), &now); err != nil {
			return err
		}
		if now == nil || now.UID != claim.UID {
			return kube.Conflict("claim %s is another one now", claim.Name)
		}
		claim = now
	}
	return kube.WrapWriteError(c.mark(ctx, claim, true), "protecting claim "+claim.Name)
}

// free takes our finalizer off a claim unless a snapshot or a group needs it there.
// The turn keeps a snapshot that is about to need it from relying on it.
func (c *Claims) free(ctx context.Context, claim *corev1.PersistentVolumeClaim) (needed bool, err error) {
	release, err := c.turn(ctx, claim)
	if err != nil {
		return false, err
	}
	defer release()
	needed, err = c.needed(ctx, claim)
	if err != nil || needed {
		return needed, err
	}
	return false, kube.WrapWriteError(c.mark(ctx, claim, false), "letting claim "+claim.Name+" go")
}

func (c *Claims) turn(ctx context.Context, claim *corev1.PersistentVolumeClaim) (release func(), err error) {
	if release, err = c.keyMutex.Lock(ctx, client.ObjectKeyFromObject(claim).String()); err != nil {
		return nil, fmt.Errorf("waiting for claim %s: %w", claim.Name, err)
	}
	return release, nil
}

// Reconcile frees a claim.
func (c *Claims) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	var claim *corev1.PersistentVolumeClaim
	if err := kube.GetIfExists(ctx, c.client, request.NamespacedName, &claim); err != nil || claim == nil || !isKept(claim) {
		return reconcile.Result{}, err
	}
	needed, err := c.free(ctx, claim)
	switch {
	case kube.IsConflict(err):
		return reconcile.Result{RequeueAfter: c.pause}, nil
	case err == nil && needed && c.groups != nil && c.groups.working() == nil:
		return reconcile.Result{RequeueAfter: unwatched}, nil
	default:
		return reconcile.Result{}, err
	}
}

func isKept(claim client.Object) bool {
	return slices.Contains(claim.GetFinalizers(), snapshot.ClaimFinalizer)
}

// mark puts our finalizer on a claim, or takes it off. Rights that were given to
// upstream's controller allow it to update claims, and not to patch them.
func (c *Claims) mark(ctx context.Context, claim *corev1.PersistentVolumeClaim, keep bool) error {
	set, change := kube.RemoveFinalizer, controllerutil.RemoveFinalizer
	if keep {
		set, change = kube.AddFinalizer, controllerutil.AddFinalizer
	}
	err := set(ctx, c.client, claim, snapshot.ClaimFinalizer)
	if !apierrors.IsForbidden(err) {
		return err
	}
	whole := &corev1.PersistentVolumeClaim{} // The cache's is reduced, and an update replaces everything.
	if err := c.live.Get(ctx, client.ObjectKeyFromObject(claim), whole); err != nil {
		return err
	}
	if whole.UID != claim.UID {
		return apierrors.NewNotFound(corev1.Resource("persistentvolumeclaims"), claim.Name)
	}
	if !change(whole, snapshot.ClaimFinalizer) {
		return nil
	}
	return c.client.Update(ctx, whole)
}

// needed tells whether a snapshot of the claim is not cut yet, or a group of which it
// is part. The cache may not show that one has just been protected, which relies on
// the claim being so: that is asked of the API server.
func (c *Claims) needed(ctx context.Context, claim *corev1.PersistentVolumeClaim) (bool, error) {
	list := &snapshotv1.VolumeSnapshotList{}
	err := c.client.List(ctx, list, client.InNamespace(claim.Namespace), client.MatchingFields{snapshotsByClaim: claim.Name})
	if err != nil {
		return false, fmt.Errorf("listing the snapshots of claim %s: %w", claim.Name, err)
	}
	for i := range list.Items {
		one := &list.Items[i]
		if len(one.Finalizers) == 0 {
			if err := kube.GetIfExists(ctx, c.live, client.ObjectKeyFromObject(one), &one); err != nil {
				return false, err
			}
		}
		if needsClaim(one) && snapshot.MayBeTakenOf(one, claim) {
			return true, nil
		}
	}
	return c.groups.needs(ctx, claim)
}

// needsClaim tells whether a snapshot's claim must stay: its contents are not in
// the snapshot yet.
func needsClaim(s *snapshotv1.VolumeSnapshot) bool {
	return len(s.Finalizers) > 0 && !isCut(s) && !isMember(s)
}
