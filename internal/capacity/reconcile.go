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
)

// Reconciler keeps the objects of all pairs true.
type Reconciler struct {
	client  client.Reader // the cache
	live    client.Reader // past the cache
	writer  client.Writer
	survey  *survey
	owner   *metav1.OwnerReference
	options *Options
	log     logr.Logger // for what happens outside of Reconcile

	canTell     func() bool // whether the driver knows its capacity
	getCapacity func(context.Context, *csipb.GetCapacityRequest) (*csipb.GetCapacityResponse, error)
	now         func() time.Time
}

// Reconcile makes the objects of one pair say what the driver says, and comes
// back for the next poll. Polls and retries give way to pairs of which
// something has happened.
func (r *Reconciler) Reconcile(ctx context.Context, p pair) (reconcile.Result, error) {
	result := reconcile.Result{Priority: ptr.To(handler.LowPriority)}
	s, err := r.observe(ctx, p)
	if err != nil {
		return result, err
	}
	late, err := r.do(ctx, decide(s, r.options))
	switch {
	case err != nil:
		return result, err
	case late:
		result.RequeueAfter = r.options.RetryStart
	case s.wanted():
		result.RequeueAfter = untilPoll(p, r.options.PollInterval, r.now())
	}
	return result, nil
}

// do takes one step. It is late if the objects are not those any more that were
// seen: a moment later the cache knows.
func (r *Reconciler) do(ctx context.Context, next step) (late bool, err error) {
	if next.create != nil {
		err = r.create(ctx, next.create)
	}
	if next.update != nil {
		late, err = r.update(ctx, next.from, next.update)
	}
	if err != nil {
		return false, err
	}
	for i := range next.remove {
		if err := r.remove(ctx, &next.remove[i]); err != nil {
			return false, err
		}
	}
	return late, nil
}

// create makes an object. If there is one of its name, it is most likely ours
// and the cache is late; if it is somebody else's, any other name will do.
func (r *Reconciler) create(ctx context.Context, object *storagev1.CSIStorageCapacity) error {
	err := r.writer.Create(ctx, object)
	if apierrors.IsAlreadyExists(err) {
		there := &storagev1.CSIStorageCapacity{}
		if err := r.live.Get(ctx, client.ObjectKeyFromObject(object), there); err != nil {
			return fmt.Errorf("reading CSIStorageCapacity %s, which exists already: %w", object.Name, err)
		}
		if r.options.ours(there) && pairOf(there) == pairOf(object) {
			return nil
		}
		object.Name = ""
		err = r.writer.Create(ctx, object)
	}
	if err != nil {
		return fmt.Errorf("creating a CSIStorageCapacity about %s: %w", pairOf(object), err)
	}
	return nil
}

func (r *Reconciler) update(ctx context.Context, from, to *storagev1.CSIStorageCapacity) (late bool, err error) {
	unlessChanged := client.MergeFromWithOptions(from, client.MergeFromWithOptimisticLock{})
	err = r.writer.Patch(ctx, to, unlessChanged)
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("updating CSIStorageCapacity %s: %w", from.Name, err)
	}
	return false, nil
}

func (r *Reconciler) remove(ctx context.Context, object *storagev1.CSIStorageCapacity) error {
	err := r.writer.Delete(ctx, object, client.Preconditions{UID: &object.UID})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("deleting CSIStorageCapacity %s: %w", object.Name, err)
	}
	return nil
}
