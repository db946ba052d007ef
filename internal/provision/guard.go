package provision

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
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/provision/pending"
	"github.com/holdfast-io/holdfast/internal/provision/source"
)

// A Controller keeps what volumes are being filled from. The finalizer goes on a
// source when the intent that names it is on record, before the driver is
// asked; and off when no intent names it any more: one restore that ends does
// not unprotect another.
//
// The intents on record are the truth, those of all nodes. Whoever unprotects a
// source reads it first and the intents then, and writes only what it has read.
// Whoever protects it does so after its intent is on record. So either the one
// sees the other's intent, or its write comes first and the other repairs it.
type Controller struct {
	client          client.Client
	apiReader       client.Reader // past the cache
	namespace       string        // of the intents
	options         *Options
	shared          bool // with the provisioners of other nodes
	recheckInterval time.Duration

	locks [64]sync.Mutex // held over reading and writing a source's finalizers, see lock

	// queue wakes the guard up for a source that a claim has let go of. The end
	// of the intent does so too, and either can come first.
	queue chan event.TypedGenericEvent[source.Source]
}

// queueSize is far more than the workers that can be done at a time; what
// does not fit is left to the sweeper.
const queueSize = 1024

func newController(m ctrl.Manager, o *Options) *Controller {
	return &Controller{
		client: m.GetClient(), apiReader: m.GetAPIReader(), namespace: o.Namespace, options: o,
		shared: o.Node.Deployed, recheckInterval: o.RetryMax, queue: make(chan event.TypedGenericEvent[source.Source], queueSize),
	}
}

// protectedForAnnotation on a snapshot names the Lease of the last operation that has
// protected it.
const protectedForAnnotation = "provision.holdfast.io/protected-for"

var lockSeed = maphash.MakeSeed()

// finalizer is the one that keeps a source of that kind.
func finalizer(s source.Source) string {
	if s.Kind == source.KindSnapshot {
		return kube.SnapshotSourceFinalizer
	}
	return kube.CloneSourceFinalizer
}

// Why a source cannot be protected any more.
var (
	ErrGone     = errors.New("it went away")
	ErrDeleting = errors.New("it is being deleted")
)

// ProtectIfPossible protects the source of an intent that was on record before. A source
// that cannot be protected any more is let go: the driver may have been asked,
// so it is asked again.
func (c *Controller) ProtectIfPossible(ctx context.Context, op *pending.Operation) error {
	err := c.Protect(ctx, op)
	if errors.Is(err, ErrGone) || errors.Is(err, ErrDeleting) {
		return nil
	}
	return err
}

// Protect puts the finalizer on the source of an intent that is on record.
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
		return nil // Some install the program without that right; it never was essential.
	}
	return err
}

// touch changes a source that is protected already, so that another node which has
// just found that it need not be any more cannot write that. A claim stays protected
// until it is deleted, so nobody takes that from it before.
func (c *Controller) touch(s source.Source, object client.Object, record types.UID) bool {
	notes := object.GetAnnotations()
	safe := s.Kind == source.KindClaim && object.GetDeletionTimestamp() == nil
	if !c.shared || safe || notes[protectedForAnnotation] == string(record) {
		return false
	}
	if notes == nil {
		notes = map[string]string{}
	}
	notes[protectedForAnnotation] = string(record)
	object.SetAnnotations(notes)
	return true
}

// Enqueue has a source looked at whose intent is off the record.
func (c *Controller) Enqueue(s source.Source) {
	select {
	case c.queue <- event.TypedGenericEvent[source.Source]{Object: s}:
	default:
	}
}

// Reconcile unprotects a source that nothing is filled from any more. A claim
// that was cloned keeps its finalizer until it is deleted, for the next clone.
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

// isCloneSourceDone tells whether a claim of ours is being deleted and nobody waits for a clone
// of it any more.
func (c *Controller) isCloneSourceDone(ctx context.Context, claim *corev1.PersistentVolumeClaim) (bool, error) {
	ours, err := c.isOurClaim(ctx, claim)
	if !ours || err != nil || claim.DeletionTimestamp == nil {
		return false, err
	}
	waiting, err := c.waitingClaims(ctx, source.Source{Kind: source.KindClaim, Namespace: claim.Namespace, Name: claim.Name})
	if err != nil {
		return false, err
	}
	return !slices.ContainsFunc(waiting, func(c corev1.PersistentVolumeClaim) bool { return source.IsHeldFor(claim, &c) }), nil
}

// waitingClaims are the claims that wait for a volume from a source and have none yet: the
// program whose place we take may have asked the driver for it, and keeps no record.
func (c *Controller) waitingClaims(ctx context.Context, s source.Source) ([]corev1.PersistentVolumeClaim, error) {
	claims := &corev1.PersistentVolumeClaimList{}
	if err := c.client.List(ctx, claims, client.MatchingFields{claimsBySource: s.Key()}); err != nil {
		return nil, fmt.Errorf("listing the claims that wait for a volume from %s: %w", s, err)
	}
	var waiting []corev1.PersistentVolumeClaim
	for _, claim := range claims.Items {
		volumes := &corev1.PersistentVolumeList{}
		if err := c.client.List(ctx, volumes, client.MatchingFields{volumesByClaim: string(claim.UID)}); err != nil {
			return nil, fmt.Errorf("reading the volumes of claim %s/%s: %w", claim.Namespace, claim.Name, err)
		}
		if len(volumes.Items) == 0 {
			waiting = append(waiting, claim)
		}
	}
	return waiting, nil
}

// removeFinalizer takes the finalizer off. It fails if the object has changed since it
// was read. Some install the program without the right to change snapshots; the
// sweeper comes back to those. To a claim nobody comes back.
func (c *Controller) removeFinalizer(ctx context.Context, s source.Source, object client.Object) error {
	object.SetFinalizers(slices.DeleteFunc(object.GetFinalizers(), func(f string) bool { return f == finalizer(s) }))
	err := c.client.Update(ctx, object)
	if s.Kind == source.KindSnapshot && apierrors.IsForbidden(err) {
		return nil
	}
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("unprotecting %s: %w", s, err)
	}
	return nil
}

// isOurClaim tells whether a claim has a volume of our driver. Provisioners of other
// drivers use the same finalizer, and only they know what they clone.
func (c *Controller) isOurClaim(ctx context.Context, claim *corev1.PersistentVolumeClaim) (bool, error) {
	volume := &corev1.PersistentVolume{}
	err := c.apiReader.Get(ctx, types.NamespacedName{Name: claim.Spec.VolumeName}, volume)
	if apierrors.IsNotFound(err) {
		return c.options.isOurClaim(claim), nil
	}
	if err != nil {
		return false, fmt.Errorf("reading the volume of claim %s/%s: %w", claim.Namespace, claim.Name, err)
	}
	return c.options.Plugin.HasVolume(volume) || volume.Spec.CSI != nil && volume.Spec.CSI.Driver == c.options.Driver, nil
}

// hasOperations tells whether a volume is being filled from the source, on any node. It
// asks the API server itself: the cache only has this node's intents.
func (c *Controller) hasOperations(ctx context.Context, s source.Source) (bool, error) {
	leases := &coordinationv1.LeaseList{}
	if err := c.apiReader.List(ctx, leases, client.InNamespace(c.namespace), pending.Readers(c.options.Driver, s)); err != nil {
		return false, fmt.Errorf("reading the intents for %s: %w", s, err)
	}
	return len(leases.Items) > 0, nil
}

// requeueAfter is when to look again at a source that is busy: the end of another
// node's intent wakes nobody here, and that node may not live to see it.
func (c *Controller) requeueAfter() time.Duration {
	if c.shared {
		return c.recheckInterval
	}
	return 0
}

// lock keeps others from a source's finalizers until unlock. Sources that share
// a lock wait for each other, which is rare and does no harm.
func (c *Controller) lock(s source.Source) (unlock func()) {
	l := &c.locks[maphash.Comparable(lockSeed, s)%uint64(len(c.locks))]
	l.Lock()
	return l.Unlock
}

// get reads a source from the API server itself; nil if it is gone.
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
