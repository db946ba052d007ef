package protection

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"sync"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/migrate"
	"github.com/holdfast-io/holdfast/internal/provision/pending"
	"github.com/holdfast-io/holdfast/internal/provision/source"
)

// Options are those of a [Controller].
type Options struct {
	// Driver is the CSI driver's name, and Plugin the in-tree plugin that it replaces.
	Driver string
	Plugin migrate.Plugin
	// Namespace is that of the records of pending operations.
	Namespace string
	// Shared is whether provisioners of other nodes protect the same sources.
	Shared bool
	// Workers is how many sources are unprotected at a time.
	Workers int
	// RetryStart and RetryMax bound the delay of retries.
	RetryStart, RetryMax time.Duration
	// SweepInterval is how often all snapshots are checked for leftover finalizers; 0
	// is never.
	SweepInterval time.Duration
	// IsOurClaim reports whether a claim's volume is to be provisioned by us.
	IsOurClaim func(*corev1.PersistentVolumeClaim) bool
	// Events are about sources that cannot be unprotected.
	Events *kube.Events
	// WaitingClaims returns the cached claims that wait for a volume from a source and
	// have none yet. csi-provisioner may have called the driver for them, and it keeps
	// no record.
	WaitingClaims func(context.Context, source.Source) ([]corev1.PersistentVolumeClaim, error)
}

// A Controller adds finalizers to sources when the provisioner asks for it, and removes
// them when no pending operation needs them.
type Controller struct {
	Options
	client    client.Client
	apiReader client.Reader // uncached

	locks [64]sync.Mutex // held while a source's finalizers are read and written, see lock

	// queue starts a check of a source whose operation has ended. The deletion of the
	// operation's Lease starts one too, and either can come first.
	queue chan event.TypedGenericEvent[source.Source]
}

// queueSize is far more than the workers that can be done at a time. The sweeper finds
// the sources that do not fit.
const queueSize = 1024

// New returns a controller that protects sources, and unprotects them after its Setup.
func New(c client.Client, apiReader client.Reader, o Options) *Controller {
	return &Controller{Options: o, client: c, apiReader: apiReader, queue: make(chan event.TypedGenericEvent[source.Source], queueSize)}
}

// protectedForAnnotation on a snapshot names the Lease of the last operation that has
// protected it.
const protectedForAnnotation = "provision.holdfast.io/protected-for"

// finalizer returns the finalizer that protects sources of the kind.
func finalizer(s source.Source) string {
	if s.Kind == source.KindSnapshot {
		return kube.SnapshotSourceFinalizer
	}
	return kube.CloneSourceFinalizer
}

// Errors of [Controller.Protect] for a source that cannot be protected any more.
var (
	ErrGone     = errors.New("it is gone")
	ErrDeleting = errors.New("it is being deleted")
)

// ProtectIfPossible protects the source of an operation that was recorded before this
// attempt. It ignores that a source cannot be protected any more: the driver may have
// been called already, so the call must be repeated.
func (c *Controller) ProtectIfPossible(ctx context.Context, op *pending.Operation) error {
	err := c.Protect(ctx, op)
	if errors.Is(err, ErrGone) || errors.Is(err, ErrDeleting) {
		return nil
	}
	return err
}

// Protect adds the finalizer to the source of a recorded operation.
func (c *Controller) Protect(ctx context.Context, op *pending.Operation) error {
	if op.Source == nil {
		return nil
	}
	defer c.lock(*op.Source)()
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		object, err := c.get(ctx, *op.Source)
		if err != nil {
			return err
		}
		return c.addFinalizer(ctx, *op.Source, object, op.UID)
	})
	if err != nil {
		return fmt.Errorf("protecting %s: %w", op.Source, err)
	}
	return nil
}

func (c *Controller) addFinalizer(ctx context.Context, s source.Source, object client.Object, record types.UID) error {
	if object == nil {
		return ErrGone
	}
	protected := slices.Contains(object.GetFinalizers(), finalizer(s))
	switch {
	case object.GetDeletionTimestamp() != nil && !protected:
		return ErrDeleting
	case !protected:
		object.SetFinalizers(append(object.GetFinalizers(), finalizer(s)))
	case !c.touch(s, object, record):
		return nil
	}
	err := c.client.Update(ctx, object)
	if s.Kind == source.KindSnapshot && apierrors.IsForbidden(err) {
		return nil // Not every role permits it. csi-provisioner works without it too.
	}
	return err
}

// touch changes a source that is protected already, so that the update of another node
// that is about to unprotect it fails with a conflict. It reports whether the source
// has changed. A claim that is not being deleted need not be touched: it stays
// protected until it is deleted.
func (c *Controller) touch(s source.Source, object client.Object, record types.UID) bool {
	notes := object.GetAnnotations()
	safe := s.Kind == source.KindClaim && object.GetDeletionTimestamp() == nil
	if !c.Shared || safe || notes[protectedForAnnotation] == string(record) {
		return false
	}
	if notes == nil {
		notes = map[string]string{}
	}
	notes[protectedForAnnotation] = string(record)
	object.SetAnnotations(notes)
	return true
}

// Enqueue starts a check of a source one of whose operations has ended.
func (c *Controller) Enqueue(s source.Source) {
	select {
	case c.queue <- event.TypedGenericEvent[source.Source]{Object: s}:
	default:
	}
}

// Reconcile unprotects a source that no volume is being filled from. A cloned claim
// keeps its finalizer until it is deleted, for the next clone.
func (c *Controller) Reconcile(ctx context.Context, s source.Source) (reconcile.Result, error) {
	defer c.lock(s)()
	object, err := c.get(ctx, s)
	if err != nil || object == nil || !slices.Contains(object.GetFinalizers(), finalizer(s)) {
		return reconcile.Result{}, err
	}
	if busy, err := c.hasOperations(ctx, s); busy || err != nil {
		return reconcile.Result{RequeueAfter: c.requeueAfter()}, err
	}
	if claim, ok := object.(*corev1.PersistentVolumeClaim); ok {
		if done, err := c.isCloneSourceDone(ctx, claim); !done || err != nil {
			return reconcile.Result{}, err
		}
	}
	return reconcile.Result{}, c.removeFinalizer(ctx, s, object)
}

// isCloneSourceDone reports whether a claim of ours is being deleted and no claim waits
// for a clone of it.
func (c *Controller) isCloneSourceDone(ctx context.Context, claim *corev1.PersistentVolumeClaim) (bool, error) {
	ours, err := c.isOurClaim(ctx, claim)
	if !ours || err != nil || claim.DeletionTimestamp == nil {
		return false, err
	}
	waiting, err := c.WaitingClaims(ctx, source.Source{Kind: source.KindClaim, Namespace: claim.Namespace, Name: claim.Name})
	if err != nil {
		return false, err
	}
	return !slices.ContainsFunc(waiting, func(c corev1.PersistentVolumeClaim) bool { return source.IsHeldFor(claim, &c) }), nil
}

// removeFinalizer removes the finalizer. It fails if the object has changed since it was
// read. A snapshot or claim that keeps the finalizer cannot be deleted, so a denied write is
// reported and retried, also if the role does not permit it any more.
func (c *Controller) removeFinalizer(ctx context.Context, s source.Source, object client.Object) error {
	object.SetFinalizers(slices.DeleteFunc(object.GetFinalizers(), func(f string) bool { return f == finalizer(s) }))
	err := c.client.Update(ctx, object)
	if kube.IgnoreGone(err) == nil {
		return nil
	}
	err = fmt.Errorf("unprotecting %s: %w", s, err)
	c.Events.WarnIfDenied(object, kube.ReasonDenied, err)
	return err
}

// isOurClaim reports whether a claim's volume is our driver's. Provisioners of other
// drivers use the same finalizer, and only they know their clones.
func (c *Controller) isOurClaim(ctx context.Context, claim *corev1.PersistentVolumeClaim) (bool, error) {
	volume := &corev1.PersistentVolume{}
	err := c.apiReader.Get(ctx, types.NamespacedName{Name: claim.Spec.VolumeName}, volume)
	if apierrors.IsNotFound(err) {
		return c.IsOurClaim(claim), nil
	}
	if err != nil {
		return false, fmt.Errorf("reading the volume of claim %s/%s: %w", claim.Namespace, claim.Name, err)
	}
	return c.Plugin.HasVolume(volume) || volume.Spec.CSI != nil && volume.Spec.CSI.Driver == c.Driver, nil
}

// hasOperations reports whether a volume is being filled from the source on any node. It
// reads from the API server, because the cache has this node's operations only.
func (c *Controller) hasOperations(ctx context.Context, s source.Source) (bool, error) {
	leases := &coordinationv1.LeaseList{}
	if err := c.apiReader.List(ctx, leases, client.InNamespace(c.Namespace), pending.Readers(c.Driver, s)); err != nil {
		return false, fmt.Errorf("reading the pending operations for %s: %w", s, err)
	}
	return len(leases.Items) > 0, nil
}

// requeueAfter returns when to check a source again that an operation reads. The end of
// another node's operation starts no check here, and that node may have died.
func (c *Controller) requeueAfter() time.Duration {
	if c.Shared {
		return c.RetryMax
	}
	return 0
}

var lockSeed = maphash.MakeSeed()

// lock serializes changes of a source's finalizers in this process until unlock is
// called. Sources that share a mutex wait for each other, which is rare and harmless.
func (c *Controller) lock(s source.Source) (unlock func()) {
	l := &c.locks[maphash.Comparable(lockSeed, s)%uint64(len(c.locks))]
	l.Lock()
	return l.Unlock
}

// get reads a source from the API server, nil if it is gone.
func (c *Controller) get(ctx context.Context, s source.Source) (client.Object, error) {
	var object client.Object = &corev1.PersistentVolumeClaim{}
	if s.Kind == source.KindSnapshot {
		object = &snapshotv1.VolumeSnapshot{}
	}
	if err := c.apiReader.Get(ctx, types.NamespacedName{Namespace: s.Namespace, Name: s.Name}, object); err != nil {
		if apierrors.IsNotFound(err) {
			return nil, nil
		}
		return nil, fmt.Errorf("reading %s: %w", s, err)
	}
	return object, nil
}
