package resize

import (
	"context"
	"errors"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/kube"
)

// Reconciler gives claims the size and the attributes that they want.
type Reconciler struct {
	client    client.Client
	apiReader client.Reader // past the cache
	driver    *csi.Driver
	events    *kube.Events
	options   *Options
	pods      *podWatcher
	now       func() time.Time

	nodeExpands    bool // the driver can expand volumes at their nodes
	followsClasses bool // attributes classes are followed
}

// Reconcile takes one claim a step closer to what it wants: it makes the volume
// larger, then modifies it. That the one is refused does not keep the other from
// being done.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	s, err := r.observe(ctx, r.client, request.NamespacedName)
	if err != nil || s.volume == nil {
		return reconcile.Result{}, err
	}
	grown, err := r.retryOnConflict(ctx, &s, r.expand)
	if s.volume == nil {
		return reconcile.Result{}, err
	}
	modified, problem := r.retryOnConflict(ctx, &s, r.modify)
	return reconcile.Result{RequeueAfter: shorterWait(grown, modified)}, errors.Join(err, problem)
}

// retryOnConflict takes a step. If what was seen was not true any more it looks again,
// at the API server itself, and decides again. It returns after how long to come
// back, 0 for when something changes.
func (r *Reconciler) retryOnConflict(ctx context.Context, s *state, step func(context.Context, *state) (time.Duration, error)) (time.Duration, error) {
	key := client.ObjectKeyFromObject(s.claim)
	for range maxAttempts {
		after, err := step(ctx, s)
		if !errors.Is(err, errConflict) {
			return after, err
		}
		if *s, err = r.observe(ctx, r.apiReader, key); err != nil || s.volume == nil {
			return 0, err
		}
	}
	return r.options.RetryStart, nil // Somebody writes without a pause.
}

// shorterWait is the shorter of two times to wait, where 0 is for ever.
func shorterWait(a, b time.Duration) time.Duration {
	if a == 0 || b > 0 && b < a {
		return b
	}
	return a
}
