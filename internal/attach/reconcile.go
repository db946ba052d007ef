package attach

import (
	"context"
	"errors"
	"fmt"

	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/keymutex"
	"github.com/holdfast-io/holdfast/internal/kube"
)

// Reconciler attaches and detaches. It remembers nothing that a restart may not
// forget.
type Reconciler struct {
	client   client.Client
	live     client.Reader // past the cache
	fence    *kube.MinResourceVersion
	driver   *csi.Driver
	events   *kube.Events
	options  *Options
	forced   *forced
	keyMutex keymutex.KeyMutex // by VolumeAttachment
}

// A lane works on the attachments, or on the detachments.
type lane struct {
	*Reconciler
	detaches bool
}

// Reconcile takes one VolumeAttachment to where it should be, if that is this
// lane's work. The cache is read when it is its turn: what the other lane has
// ended before is in it, because that lane began with the same cache.
func (l lane) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	release, err := l.keyMutex.Lock(ctx, request.Name)
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("waiting for the other lane: %w", err)
	}
	defer release()
	s, next, err := l.look(ctx, request.Name)
	switch {
	case err != nil:
		return reconcile.Result{}, err
	case s.attachment == nil:
		l.forced.done(request.Name)
		return reconcile.Result{}, nil
	case s.deleting() != l.detaches:
		return reconcile.Result{}, nil
	}
	err = l.do(ctx, s, next)
	if !isSuperseded(err) {
		return reconcile.Result{}, err
	}
	denied, problem := l.denied(ctx, s, err)
	if denied {
		return reconcile.Result{}, l.failed(ctx, s, fmt.Errorf("the API server does not accept a change of VolumeAttachment %s: %w", request.Name, err))
	}
	return reconcile.Result{RequeueAfter: l.options.RetryStart}, problem
}

// denied tells whether the API server refuses a write for good, as an admission
// policy does: it answers like a condition that does not hold, and the object
// still is the one that was seen.
func (r *Reconciler) denied(ctx context.Context, s seen, err error) (bool, error) {
	if !apierrors.IsInvalid(err) {
		return false, nil
	}
	now := &storagev1.VolumeAttachment{}
	found, problem := get(ctx, r.live, s.attachment.Name, now)
	return found && now.UID == s.attachment.UID && now.ResourceVersion == s.attachment.ResourceVersion, problem
}

// look observes and decides. An object of the cache that may be older than this
// process's lead is read again before the driver is asked: it may have been
// detached, and attached anew under the same name, by a predecessor.
func (l lane) look(ctx context.Context, name string) (seen, step, error) {
	s, err := l.observe(ctx, l.client, name)
	if err != nil {
		return s, step{}, err
	}
	next := decide(s, l.options)
	if !l.asks(s, next) {
		return s, next, nil
	}
	old, err := l.fence.IsOlder(ctx, s.attachment)
	if err != nil || !old {
		return s, next, err
	}
	if s, err = l.observe(ctx, l.live, name); err != nil {
		return s, step{}, err
	}
	return s, decide(s, l.options), nil
}

// asks tells whether a step asks the driver before anything is written under
// the condition that the object is still the one that was seen.
func (l lane) asks(s seen, next step) bool {
	switch next.kind {
	case unpublish, move:
		return true
	case publish:
		return s.held(l.options) && recordOf(s.attachment).complete(s.wanted())
	default:
		return false
	}
}

func (l lane) do(ctx context.Context, s seen, next step) error {
	switch next.kind {
	case mark:
		return l.setAttached(ctx, s.attachment, nil)
	case refuse:
		return l.failed(ctx, s, errors.New(next.message))
	case publish:
		return l.failed(ctx, s, l.attach(ctx, s))
	case move:
		if err := l.withdraw(ctx, s, s.published()); err != nil {
			return l.failed(ctx, s, fmt.Errorf("detaching the volume from where it may be first: %w", err))
		}
		return l.failed(ctx, s, l.attach(ctx, s))
	case unpublish:
		return l.failed(ctx, s, l.detach(ctx, s))
	case rest:
	}
	return nil
}

// superseded says that the object is not the one that was seen any more. Nobody
// needs to be told: it is looked at again soon.
type superseded struct{ error }

// Unwrap returns what the API server said.
func (s superseded) Unwrap() error { return s.error }

// written wraps the error of writing to the object that was seen.
func written(err error, verb string) error {
	switch {
	case err == nil:
		return nil
	case kube.IsConflictResponse(err):
		return superseded{err}
	default:
		return fmt.Errorf("%s: %w", verb, err)
	}
}

// isSuperseded tells whether an error only says that. One that is joined with
// another says more.
func isSuperseded(err error) bool {
	_, only := err.(superseded) //nolint:errorlint // See above.
	return only
}
