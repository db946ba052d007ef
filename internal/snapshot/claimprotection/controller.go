package claimprotection

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

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

// reasonWaiting is that of an event about a claim that is being deleted and that a snapshot
// needs.
const reasonWaiting = "WaitingForSnapshot"

// A ClaimUser is a kind of snapshots that are taken of claims.
type ClaimUser interface {
	// NeedsClaim returns a snapshot of this kind that still needs a claim, by kind and
	// name, and "" if there is none. recheckAfter is set if no event will wake the claim
	// when the need ends.
	NeedsClaim(ctx context.Context, claim *corev1.PersistentVolumeClaim) (by string, recheckAfter time.Duration, err error)
}

// Controller reconciles claims: it removes our finalizer from each claim that no
// snapshot needs. Whoever takes a snapshot calls AddFinalizers first.
type Controller struct {
	client     client.Client
	apiReader  client.Reader // uncached
	events     *kube.Events
	retryAfter time.Duration // after a conflict
	users      []ClaimUser
	keyMutex   *keymutex.KeyMutex // by claim; it guards the finalizer
	controller controller.Controller
	now        func() time.Time
}

// New makes the controller of the claims that these users need. A write that
// conflicted is retried after retryAfter.
func New(c client.Client, apiReader client.Reader, events *kube.Events, retryAfter time.Duration, users ...ClaimUser) *Controller {
	return &Controller{
		client: c, apiReader: apiReader, events: events, retryAfter: retryAfter, users: users,
		keyMutex: &keymutex.KeyMutex{}, now: time.Now,
	}
}

// AddFinalizers adds our finalizer to claims. Nobody removes it before unlock is
// called. Call that when an object exists that shows who needs the claims. To avoid
// deadlocks, the claims of a namespace must be sorted, for example by name.
func (c *Controller) AddFinalizers(ctx context.Context, sources []snapshot.Source) (unlock func(), err error) {
	var unlocks []func()
	unlock = func() {
		for _, unlockOne := range unlocks {
			unlockOne()
		}
	}
	for i := range sources {
		unlockOne, err := c.lock(ctx, sources[i].Claim)
		if err == nil {
			unlocks = append(unlocks, unlockOne)
			err = c.addFinalizer(ctx, sources[i].Claim)
		}
		if err != nil {
			unlock()
			return nil, err
		}
	}
	return unlock, nil
}

// addFinalizer adds our finalizer to one claim. If the cache shows it already, the
// API server is asked: it may just have been removed after another snapshot.
func (c *Controller) addFinalizer(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	if hasFinalizer(claim) {
		var current *corev1.PersistentVolumeClaim
		if err := kube.GetIfExists(ctx, c.apiReader, client.ObjectKeyFromObject(claim), &current); err != nil {
			return err
		}
		if current == nil || current.UID != claim.UID {
			return kube.Conflict("claim %s was deleted and created again", claim.Name)
		}
		claim = current
	}
	return kube.WrapWriteError(c.setFinalizer(ctx, claim, true), "adding the finalizer to claim "+claim.Name)
}

// Reconcile removes our finalizer from a claim that nobody needs.
func (c *Controller) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	var claim *corev1.PersistentVolumeClaim
	if err := kube.GetIfExists(ctx, c.client, request.NamespacedName, &claim); err != nil || claim == nil || !hasFinalizer(claim) {
		return reconcile.Result{}, err
	}
	recheckAfter, err := c.removeFinalizerIfUnneeded(ctx, claim)
	if kube.IsConflict(err) {
		return reconcile.Result{RequeueAfter: c.retryAfter}, nil
	}
	c.events.WarnIfDenied(claim, kube.ReasonDenied, err)
	return reconcile.Result{RequeueAfter: recheckAfter}, err
}

// removeFinalizerIfUnneeded holds the claim's lock, so that no new snapshot relies on
// the finalizer meanwhile.
func (c *Controller) removeFinalizerIfUnneeded(ctx context.Context, claim *corev1.PersistentVolumeClaim) (recheckAfter time.Duration, err error) {
	unlock, err := c.lock(ctx, claim)
	if err != nil {
		return 0, err
	}
	defer unlock()
	for _, user := range c.users {
		by, recheckAfter, err := user.NeedsClaim(ctx, claim)
		if err != nil {
			return 0, err
		}
		if by != "" {
			return cmp.Or(c.reportWait(claim, by), recheckAfter), nil
		}
	}
	return 0, kube.WrapWriteError(c.setFinalizer(ctx, claim, false), "removing the finalizer from claim "+claim.Name)
}

// waitEventDelay is how long a deleted claim may wait for a snapshot before an event says
// so. Most snapshots are taken by then.
const waitEventDelay = 10 * time.Second

// reportWait emits an event about a claim that is being deleted and that a snapshot needs.
// It returns how long to wait before that; 0 if nothing is left to be reported.
func (c *Controller) reportWait(claim *corev1.PersistentVolumeClaim, by string) time.Duration {
	if claim.DeletionTimestamp == nil {
		return 0
	}
	if left := waitEventDelay - c.now().Sub(claim.DeletionTimestamp.Time); left > 0 {
		return left
	}
	c.events.Normal(claim, reasonWaiting, fmt.Sprintf("The claim is being deleted and waits until %s is taken of it: see the status of that; delete it if it is not wanted any more", by))
	return 0
}

func (c *Controller) lock(ctx context.Context, claim *corev1.PersistentVolumeClaim) (unlock func(), err error) {
	if unlock, err = c.keyMutex.Lock(ctx, client.ObjectKeyFromObject(claim).String()); err != nil {
		return nil, fmt.Errorf("waiting for claim %s: %w", claim.Name, err)
	}
	return unlock, nil
}

func hasFinalizer(claim client.Object) bool {
	return slices.Contains(claim.GetFinalizers(), snapshot.ClaimFinalizer)
}

// setFinalizer adds our finalizer to a claim, or removes it. It patches the claim, and
// updates it where patching is forbidden: the RBAC role of upstream's controller only
// allows updates of claims.
func (c *Controller) setFinalizer(ctx context.Context, claim *corev1.PersistentVolumeClaim, add bool) error {
	patch, change := kube.RemoveFinalizer, controllerutil.RemoveFinalizer
	if add {
		patch, change = kube.AddFinalizer, controllerutil.AddFinalizer
	}
	err := patch(ctx, c.client, claim, snapshot.ClaimFinalizer)
	if !apierrors.IsForbidden(err) {
		return err
	}
	full := &corev1.PersistentVolumeClaim{} // The cache only has parts of claims, and an update replaces everything.
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
