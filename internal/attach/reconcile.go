package attach

import (
	"context"
	"errors"
	"fmt"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/keymutex"
	"github.com/holdfast-io/holdfast/internal/kube"
)

// Reconciler attaches and detaches volumes. All state that must survive a
// restart is in API objects.
type Reconciler struct {
	client     client.Client
	apiReader  client.Reader // uncached
	minVersion *kube.MinResourceVersion
	driver     *csi.Driver
	events     *kube.Events
	options    *Options
	resyncs    *resyncRequests
	keyMutex   keymutex.KeyMutex // by name of the VolumeAttachment
}

// A queue attaches volumes, or detaches them.
type queue struct {
	*Reconciler
	detaches bool
}

// Reconcile does the next step for one VolumeAttachment, if that is this
// queue's work. It reads the cache after it has locked the key, so it sees what
// made the other queue start.
func (q queue) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	release, err := q.keyMutex.Lock(ctx, request.Name)
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("waiting for the other queue: %w", err)
	}
	defer release()
	s, next, err := q.observeAndDecide(ctx, request.Name)
	switch {
	case err != nil:
		return reconcile.Result{}, err
	case s.attachment == nil:
		q.resyncs.remove(request.Name)
		return reconcile.Result{}, nil
	case s.isDeleting() != q.detaches:
		return reconcile.Result{}, nil
	}
	err = q.execute(ctx, s, next)
	if kube.IsConflict(err) {
		return reconcile.Result{RequeueAfter: q.options.RetryStart}, nil
	}
	return reconcile.Result{}, err
}

// observeAndDecide observes and decides. If the cached object may be older than
// this process's leadership term, it is read from the API server before the
// driver is called: the previous leader may have detached the volume and
// attached it again under the same name.
func (q queue) observeAndDecide(ctx context.Context, name string) (state, step, error) {
	s, err := q.observe(ctx, q.client, name)
	if err != nil {
		return s, step{}, err
	}
	next := decide(s, q.options)
	if !q.callsDriverFirst(s, next) {
		return s, next, nil
	}
	old, err := q.minVersion.IsOlder(ctx, s.attachment)
	if err != nil || !old {
		return s, next, err
	}
	if s, err = q.observe(ctx, q.apiReader, name); err != nil {
		return s, step{}, err
	}
	return s, decide(s, q.options), nil
}

// callsDriverFirst reports whether a step calls the driver before any write
// that fails if the object has changed.
func (q queue) callsDriverFirst(s state, next step) bool {
	switch next.action {
	case unpublish, republish:
		return true
	case publish:
		return s.hasFinalizer(q.options) && recordOf(s.attachment).covers(s.desired())
	default:
		return false
	}
}

func (q queue) execute(ctx context.Context, s state, next step) error {
	switch next.action {
	case markAttached:
		return q.reportFailure(ctx, s, q.setAttached(ctx, s.attachment, nil))
	case reportProblem:
		return q.reportFailure(ctx, s, errors.New(next.message))
	case publish:
		return q.reportFailure(ctx, s, q.attach(ctx, s))
	case republish:
		if err := q.unpublish(ctx, s, s.published()); err != nil {
			return q.reportFailure(ctx, s, fmt.Errorf("detaching the volume from where it was attached before: %w", err))
		}
		return q.reportFailure(ctx, s, q.attach(ctx, s))
	case unpublish:
		return q.reportFailure(ctx, s, q.detach(ctx, s))
	case none:
	}
	return nil
}
