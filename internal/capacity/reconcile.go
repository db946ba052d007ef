package capacity

import (
	"context"
	"fmt"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/go-logr/logr"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// Reconciler keeps the objects of all pairs up to date.
type Reconciler struct {
	client    client.Reader // the cache
	apiReader client.Reader // uncached
	writer    client.Writer
	segments  *segmentCache
	events    *kube.Events
	owner     *metav1.OwnerReference
	options   *Options
	log       logr.Logger // outside of Reconcile

	hasGetCapacity func() bool // whether the driver has GET_CAPACITY
	getCapacity    func(context.Context, *csipb.GetCapacityRequest) (*csipb.GetCapacityResponse, error)
	now            func() time.Time
}

// Reconcile updates the objects of one pair from the driver's capacity and
// schedules the next poll. Polls and retries have low priority: pairs with events
// come first.
func (r *Reconciler) Reconcile(ctx context.Context, p pair) (reconcile.Result, error) {
	result := reconcile.Result{Priority: ptr.To(handler.LowPriority)}
	s, err := r.observe(ctx, p)
	if err != nil {
		return result, err
	}
	conflict, err := r.apply(ctx, decide(s, r.options))
	switch {
	case err != nil:
		r.reportDenied(&s, err)
		return result, err
	case conflict:
		result.RequeueAfter = r.options.RetryStart
	case s.isWanted():
		result.RequeueAfter = untilPoll(p, r.options.PollInterval, r.now())
	}
	return result, nil
}

// reportDenied emits an event about a request that the API server denies, on the class: the
// scheduler does not know its capacity.
func (r *Reconciler) reportDenied(s *state, err error) {
	if s.class != nil {
		r.events.WarnIfDenied(s.class, kube.ReasonDenied, err)
	}
}

// apply makes the changes. It reports a conflict if the objects have changed since
// they were read; the cache will have them shortly.
func (r *Reconciler) apply(ctx context.Context, c changes) (conflict bool, err error) {
	if c.create != nil {
		err = r.create(ctx, c.create)
	}
	if c.update != nil {
		conflict, err = r.update(ctx, c.existing, c.update)
	}
	if err != nil {
		return false, err
	}
	for i := range c.obsolete {
		if err := r.delete(ctx, &c.obsolete[i]); err != nil {
			return false, err
		}
	}
	return conflict, nil
}

// create creates an object. If one with its name exists, it is most likely ours and
// not in the cache yet; if it is not ours, a generated name is used.
func (r *Reconciler) create(ctx context.Context, object *storagev1.CSIStorageCapacity) error {
	err := r.writer.Create(ctx, object)
	if apierrors.IsAlreadyExists(err) {
		existing := &storagev1.CSIStorageCapacity{}
		if err := r.apiReader.Get(ctx, client.ObjectKeyFromObject(object), existing); err != nil {
			return fmt.Errorf("reading CSIStorageCapacity %s, which exists already: %w", object.Name, err)
		}
		if r.options.isOurs(existing) && pairOf(existing) == pairOf(object) {
			return nil
		}
		object.Name = ""
		err = r.writer.Create(ctx, object)
	}
	if err != nil {
		return fmt.Errorf("creating a CSIStorageCapacity for %s: %w", pairOf(object), err)
	}
	return nil
}

func (r *Reconciler) update(ctx context.Context, from, to *storagev1.CSIStorageCapacity) (conflict bool, err error) {
	unlessChanged := client.MergeFromWithOptions(from, client.MergeFromWithOptimisticLock{})
	err = r.writer.Patch(ctx, to, unlessChanged)
	if kube.IsStale(err) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("updating CSIStorageCapacity %s: %w", from.Name, err)
	}
	return false, nil
}

func (r *Reconciler) delete(ctx context.Context, object *storagev1.CSIStorageCapacity) error {
	err := r.writer.Delete(ctx, object, client.Preconditions{UID: &object.UID})
	if err != nil && !kube.IsStale(err) {
		return fmt.Errorf("deleting CSIStorageCapacity %s: %w", object.Name, err)
	}
	return nil
}
