package bind

import (
	"context"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
	"github.com/holdfast-io/holdfast/internal/turns"
)

// Reconciler works on VolumeSnapshots. It remembers nothing that a restart may
// not forget.
type Reconciler struct {
	client  client.Client
	live    client.Reader // past the cache
	events  *kube.Events
	options *Options
	claims  *turns.Turns // by claim, for its finalizer
	groups  *Groups      // nil where there are no group snapshots
	waits   *snapshot.Operations
	now     func() time.Time
}

// Reconcile takes one snapshot a step further.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	s, err := r.observe(ctx, r.client, request.NamespacedName)
	if err != nil {
		return reconcile.Result{}, err
	}
	if s.snapshot != nil {
		r.waits.Seen(s.progress())
	}
	next := decide(s, r.options)
	if s, next, err = r.renew(ctx, s, next); err != nil {
		return reconcile.Result{}, err
	}
	after, err := r.do(ctx, s, next)
	if kube.IsSuperseded(err) {
		return reconcile.Result{RequeueAfter: r.options.RetryStart}, nil
	}
	return reconcile.Result{RequeueAfter: after}, r.failed(ctx, s, err)
}

// renew looks again, at the API server itself, before a snapshot gets a content: it
// may be gone, let go by this process itself, and the cache not show it yet. A
// snapshot that is not protected yet is written first, which fails then.
func (r *Reconciler) renew(ctx context.Context, s *seen, next step) (*seen, step, error) {
	if next.action != create && next.action != adopt || !s.held() {
		return s, next, nil
	}
	s, err := r.observe(ctx, r.live, client.ObjectKeyFromObject(s.snapshot))
	if err != nil {
		return nil, step{}, err
	}
	return s, decide(s, r.options), nil
}

// do takes the step, and returns after how long to come back; 0 for when
// something changes.
func (r *Reconciler) do(ctx context.Context, s *seen, next step) (time.Duration, error) {
	switch next.action {
	case refuse:
		return 0, next.problem
	case create:
		return r.create(ctx, s)
	case adopt:
		if err := r.adopt(ctx, s); err != nil {
			return 0, err
		}
		return r.follow(ctx, s)
	case follow:
		return r.follow(ctx, s)
	case wait:
		r.events.Warning(s.snapshot, next.problem.Reason, next.problem.Text)
	case release:
		return 0, r.release(ctx, s)
	case letGo:
		return 0, r.letGo(ctx, s)
	case rest:
	}
	return 0, nil
}
