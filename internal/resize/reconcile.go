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

// Reconciler gives volumes the size and the attributes that their claims
// request.
type Reconciler struct {
	client    client.Client
	apiReader client.Reader // uncached
	driver    *csi.Driver
	events    *kube.Events
	options   *Options
	pods      *podWatcher
	now       func() time.Time

	nodeExpands    bool // the driver has the node capability EXPAND_VOLUME
	followsClasses bool // VolumeAttributesClasses are applied
}

// Reconcile does the next step for one claim. It expands the volume first and
// then modifies it. An error in one does not prevent the other.
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

// retryOnConflict runs a step. If the observed state was stale it reads the
// state from the API server and decides again. It returns the delay until the
// next attempt, and 0 to wait for an event.
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
	return r.options.RetryStart, nil // Another program keeps writing.
}

// shorterWait returns the shorter of two delays, where 0 means to wait for an
// event.
func shorterWait(a, b time.Duration) time.Duration {
	if a == 0 || b > 0 && b < a {
		return b
	}
	return a
}
