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

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/kube"
)

// A guard keeps what volumes are being filled from. The finalizer goes on a
// source when the intent that names it is on record, before the driver is
// asked; and off when no intent names it any more: one restore that ends does
// not unprotect another.
//
// The intents on record are the truth, those of all nodes. Whoever unprotects a
// source reads it first and the intents then, and writes only what it has read.
// Whoever protects it does so after its intent is on record. So either the one
// sees the other's intent, or its write comes first and the other repairs it.
type guard struct {
	client    client.Client
	live      client.Reader // past the cache
	namespace string        // of the intents
	options   *Options
	shared    bool // with the provisioners of other nodes
	pause     time.Duration

	busyWith [64]sync.Mutex // held over reading and writing a source's finalizers, see lock

	// freed wakes the guard up for a source that a claim has let go of. The end
	// of the intent does so too, and either can come first.
	freed chan event.TypedGenericEvent[source]
}

// freedBacklog is far more than the workers that can be done at a time; what
// does not fit is left to the sweeper.
const freedBacklog = 1024

func newGuard(m ctrl.Manager, o *Options) *guard {
	return &guard{
		client: m.GetClient(), live: m.GetAPIReader(), namespace: o.Namespace, options: o,
		shared: o.Node.Deployed, pause: o.RetryMax, freed: make(chan event.TypedGenericEvent[source], freedBacklog),
	}
}

var lockSeed = maphash.MakeSeed()

// finalizer is the one that keeps a source of that kind.
func (s source) finalizer() string {
	if s.Kind == kindSnapshot {
		return kube.SnapshotSourceFinalizer
	}
	return kube.CloneSourceFinalizer
}

// Why a source cannot be protected any more.
var (
	errGone  = errors.New("it went away")
	errGoing = errors.New("it is being deleted")
)

// keep protects the source of an intent that was on record before. A source
// that cannot be protected any more is let go: the driver may have been asked,
// so it is asked again.
func (g *guard) keep(ctx context.Context, i *intent) error {
	err := g.protect(ctx, i)
	if errors.Is(err, errGone) || errors.Is(err, errGoing) {
		return nil
	}
	return err
}

// protect puts the finalizer on the source of an intent that is on record.
func (g *guard) protect(ctx context.Context, i *intent) error {
	if i.source == nil {
		return nil
	}
	defer g.lock(*i.source)()
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		object, err := g.get(ctx, *i.source)
		if err != nil {
			return err
		}
		return g.add(ctx, *i.source, object, i.uid)
	})
	if err != nil {
		return fmt.Errorf("protecting %s: %w", i.source, err)
	}
	return nil
}

func (g *guard) add(ctx context.Context, s source, object client.Object, record types.UID) error {
	if object == nil {
		return errGone
	}
	held := slices.Contains(object.GetFinalizers(), s.finalizer())
	switch {
	case object.GetDeletionTimestamp() != nil && !held:
		return errGoing
	case !held:
		object.SetFinalizers(append(object.GetFinalizers(), s.finalizer()))
	case !g.touch(s, object, record):
		return nil
	}
	err := g.client.Update(ctx, object)
	if s.Kind == kindSnapshot && apierrors.IsForbidden(err) {
		return nil // Some install the program without that right; it never was essential.
	}
	return err
}

// touch changes a source that is protected already, so that another node which has
// just found that it need not be any more cannot write that. A claim stays protected
// until it is deleted, so nobody takes that from it before.
func (g *guard) touch(s source, object client.Object, record types.UID) bool {
	notes := object.GetAnnotations()
	safe := s.Kind == kindClaim && object.GetDeletionTimestamp() == nil
	if !g.shared || safe || notes[touchAnnotation] == string(record) {
		return false
	}
	if notes == nil {
		notes = map[string]string{}
	}
	notes[touchAnnotation] = string(record)
	object.SetAnnotations(notes)
	return true
}

// letGo has a source looked at whose intent is off the record.
func (g *guard) letGo(s source) {
	select {
	case g.freed <- event.TypedGenericEvent[source]{Object: s}:
	default:
	}
}

// Reconcile unprotects a source that nothing is filled from any more. A claim
// that was cloned keeps its finalizer until it is deleted, for the next clone.
func (g *guard) Reconcile(ctx context.Context, s source) (reconcile.Result, error) {
	defer g.lock(s)()
	object, err := g.get(ctx, s)
	if err != nil || object == nil || !slices.Contains(object.GetFinalizers(), s.finalizer()) {
		return reconcile.Result{}, err
	}
	if busy, err := g.busy(ctx, s); busy || err != nil {
		return reconcile.Result{RequeueAfter: g.again()}, err
	}
	if claim, ok := object.(*corev1.PersistentVolumeClaim); ok {
		if done, err := g.cloned(ctx, claim); !done || err != nil {
			return reconcile.Result{}, err
		}
	}
	return reconcile.Result{}, g.remove(ctx, s, object)
}

// cloned tells whether a claim of ours is being deleted and nobody waits for a clone
// of it any more.
func (g *guard) cloned(ctx context.Context, claim *corev1.PersistentVolumeClaim) (bool, error) {
	ours, err := g.ours(ctx, claim)
	if !ours || err != nil || claim.DeletionTimestamp == nil {
		return false, err
	}
	waiting, err := g.waiting(ctx, source{Kind: kindClaim, Namespace: claim.Namespace, Name: claim.Name})
	if err != nil {
		return false, err
	}
	return !slices.ContainsFunc(waiting, func(c corev1.PersistentVolumeClaim) bool { return waitsForClone(claim, &c) }), nil
}

// waiting are the claims that wait for a volume from a source and have none yet: the
// program whose place we take may have asked the driver for it, and keeps no record.
func (g *guard) waiting(ctx context.Context, s source) ([]corev1.PersistentVolumeClaim, error) {
	claims := &corev1.PersistentVolumeClaimList{}
	if err := g.client.List(ctx, claims, client.MatchingFields{claimsBySource: s.key()}); err != nil {
		return nil, fmt.Errorf("listing the claims that wait for a volume from %s: %w", s, err)
	}
	var waiting []corev1.PersistentVolumeClaim
	for _, claim := range claims.Items {
		volumes := &corev1.PersistentVolumeList{}
		if err := g.client.List(ctx, volumes, client.MatchingFields{volumesByClaim: string(claim.UID)}); err != nil {
			return nil, fmt.Errorf("reading the volumes of claim %s/%s: %w", claim.Namespace, claim.Name, err)
		}
		if len(volumes.Items) == 0 {
			waiting = append(waiting, claim)
		}
	}
	return waiting, nil
}

// remove takes the finalizer off. It fails if the object has changed since it
// was read. Some install the program without the right to change snapshots; the
// sweeper comes back to those. To a claim nobody comes back.
func (g *guard) remove(ctx context.Context, s source, object client.Object) error {
	object.SetFinalizers(slices.DeleteFunc(object.GetFinalizers(), func(f string) bool { return f == s.finalizer() }))
	err := g.client.Update(ctx, object)
	if s.Kind == kindSnapshot && apierrors.IsForbidden(err) {
		return nil
	}
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("unprotecting %s: %w", s, err)
	}
	return nil
}

// ours tells whether a claim has a volume of our driver. Provisioners of other
// drivers use the same finalizer, and only they know what they clone.
func (g *guard) ours(ctx context.Context, claim *corev1.PersistentVolumeClaim) (bool, error) {
	volume := &corev1.PersistentVolume{}
	err := g.live.Get(ctx, types.NamespacedName{Name: claim.Spec.VolumeName}, volume)
	if apierrors.IsNotFound(err) {
		return g.options.asked(claim), nil
	}
	if err != nil {
		return false, fmt.Errorf("reading the volume of claim %s/%s: %w", claim.Namespace, claim.Name, err)
	}
	return g.options.Plugin.Has(volume) || volume.Spec.CSI != nil && volume.Spec.CSI.Driver == g.options.Driver, nil
}

// busy tells whether a volume is being filled from the source, on any node. It
// asks the API server itself: the cache only has this node's intents.
func (g *guard) busy(ctx context.Context, s source) (bool, error) {
	leases := &coordinationv1.LeaseList{}
	reading := client.MatchingLabels{IntentLabel: csi.SafeName(g.options.Driver), sourceLabel: s.hash()}
	if err := g.live.List(ctx, leases, client.InNamespace(g.namespace), reading); err != nil {
		return false, fmt.Errorf("reading the intents for %s: %w", s, err)
	}
	return len(leases.Items) > 0, nil
}

// again is when to look again at a source that is busy: the end of another
// node's intent wakes nobody here, and that node may not live to see it.
func (g *guard) again() time.Duration {
	if g.shared {
		return g.pause
	}
	return 0
}

// lock keeps others from a source's finalizers until unlock. Sources that share
// a lock wait for each other, which is rare and does no harm.
func (g *guard) lock(s source) (unlock func()) {
	l := &g.busyWith[maphash.Comparable(lockSeed, s)%uint64(len(g.busyWith))]
	l.Lock()
	return l.Unlock
}

// get reads a source from the API server itself; nil if it is gone.
func (g *guard) get(ctx context.Context, s source) (client.Object, error) {
	var object client.Object = &corev1.PersistentVolumeClaim{}
	if s.Kind == kindSnapshot {
		object = &snapshotv1.VolumeSnapshot{}
	}
	if err := g.live.Get(ctx, types.NamespacedName{Namespace: s.Namespace, Name: s.Name}, object); err != nil {
		if apierrors.IsNotFound(err) {
			return nil, nil
		}
		return nil, fmt.Errorf("reading %s: %w", s, err)
	}
	return object, nil
}
