package provision

import (
	"context"
	"fmt"
	"slices"
	"sync"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// A guard keeps what volumes are being filled from. The finalizer goes on a
// source before the intent that names it is written, and off when no intent
// names it any more: one restore that ends does not unprotect another.
//
// The intents on record are the truth. The guard only remembers those of this
// process that the cache may not show yet, and the order of adding and removing.
type guard struct {
	client              client.Client
	live                client.Reader // past the cache
	namespace           string        // of the intents
	driver, provisioner string

	mu      sync.Mutex // held over reading and writing a source's finalizers
	pending map[source]map[types.UID]bool

	// freed wakes the guard up for a source that a claim has let go of. The end
	// of the intent does so too, and either can come first.
	freed chan event.TypedGenericEvent[source]
}

// freedBacklog is far more than the workers that can be done at a time; what
// does not fit is left to the sweeper.
const freedBacklog = 1024

func newGuard(m ctrl.Manager, o *Options) *guard {
	return &guard{
		client: m.GetClient(), live: m.GetAPIReader(), namespace: o.Namespace, driver: o.Driver, provisioner: o.Provisioner,
		pending: map[source]map[types.UID]bool{},
		freed:   make(chan event.TypedGenericEvent[source], freedBacklog),
	}
}

// finalizer is the one that keeps a source of that kind.
func (s source) finalizer() string {
	if s.Kind == kindSnapshot {
		return kube.SnapshotSourceFinalizer
	}
	return kube.CloneSourceFinalizer
}

// protect puts the finalizer on an origin, nil for none, on behalf of a claim.
func (g *guard) protect(ctx context.Context, o *origin, claim types.UID) error {
	if o == nil {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	object, err := g.get(ctx, o.source)
	if err != nil {
		return err
	}
	if object == nil {
		return fmt.Errorf("%s went away", o)
	}
	if err := g.add(ctx, o.source, object); err != nil {
		return fmt.Errorf("protecting %s: %w", o, err)
	}
	if g.pending[o.source] == nil {
		g.pending[o.source] = map[types.UID]bool{}
	}
	g.pending[o.source][claim] = true
	return nil
}

func (g *guard) add(ctx context.Context, s source, object client.Object) error {
	if slices.Contains(object.GetFinalizers(), s.finalizer()) {
		return nil
	}
	object.SetFinalizers(append(object.GetFinalizers(), s.finalizer()))
	err := g.client.Update(ctx, object)
	if s.Kind == kindSnapshot && apierrors.IsForbidden(err) {
		return nil // Some install the program without that right; it never was essential.
	}
	return err
}

// done forgets a claim whose intent is off the record.
func (g *guard) done(s source, claim types.UID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.pending[s], claim)
	if len(g.pending[s]) > 0 {
		return
	}
	delete(g.pending, s)
	select {
	case g.freed <- event.TypedGenericEvent[source]{Object: s}:
	default:
	}
}

// Reconcile unprotects a source that nothing is filled from any more. A claim
// that was cloned keeps its finalizer until it is deleted, for the next clone.
func (g *guard) Reconcile(ctx context.Context, s source) (reconcile.Result, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if busy, err := g.busy(ctx, s); busy || err != nil {
		return reconcile.Result{}, err
	}
	object, err := g.get(ctx, s)
	if err != nil || object == nil || !slices.Contains(object.GetFinalizers(), s.finalizer()) {
		return reconcile.Result{}, err
	}
	if claim, ok := object.(*corev1.PersistentVolumeClaim); ok {
		if ours, err := g.ours(ctx, claim); !ours || err != nil || claim.DeletionTimestamp == nil {
			return reconcile.Result{}, err
		}
	}
	return reconcile.Result{}, g.remove(ctx, s, object)
}

// remove takes the finalizer off. It fails if the object has changed since it
// was read.
func (g *guard) remove(ctx context.Context, s source, object client.Object) error {
	object.SetFinalizers(slices.DeleteFunc(object.GetFinalizers(), func(f string) bool { return f == s.finalizer() }))
	if err := g.client.Update(ctx, object); client.IgnoreNotFound(err) != nil && !apierrors.IsForbidden(err) {
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
		return provisionerOf(claim) == g.provisioner, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading the volume of claim %s/%s: %w", claim.Namespace, claim.Name, err)
	}
	return volume.Spec.CSI != nil && volume.Spec.CSI.Driver == g.driver, nil
}

// busy tells whether a volume is being filled from the source.
func (g *guard) busy(ctx context.Context, s source) (bool, error) {
	if len(g.pending[s]) > 0 {
		return true, nil
	}
	leases := &coordinationv1.LeaseList{}
	if err := g.client.List(ctx, leases, client.InNamespace(g.namespace), client.MatchingFields{intentsBySource: s.key()}); err != nil {
		return false, fmt.Errorf("reading the intents for %s: %w", s, err)
	}
	return len(leases.Items) > 0, nil
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
