package controller

import (
	"context"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// Reconciler is the engine that works on the snapshots of a kind. It remembers
// nothing that a restart may not forget.
type Reconciler struct {
	judge
	client  client.Client
	live    client.Reader // past the cache
	events  *kube.Events
	options *Options
	waits   *snapshot.OperationDurations
	now     func() time.Time
}

// Reconcile takes one snapshot a Step further.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	s, err := r.observe(ctx, r.client, request.NamespacedName)
	if err != nil {
		return reconcile.Result{}, err
	}
	if s.Snapshot == nil {
		return r.later(r.kind.Gone(ctx, request.NamespacedName))
	}
	r.waits.Seen(r.progress(s))
	next := r.decide(s)
	if s, next, err = r.renew(ctx, s, next); err != nil {
		return reconcile.Result{}, err
	}
	after, err := r.do(ctx, s, next)
	if kube.IsConflict(err) {
		return r.later(err)
	}
	return reconcile.Result{RequeueAfter: after}, r.failed(ctx, s, err)
}

// later comes back soon for what was superseded.
func (r *Reconciler) later(err error) (reconcile.Result, error) {
	if kube.IsConflict(err) {
		return reconcile.Result{RequeueAfter: kube.RetryAfterConflict(r.options.RetryStart)}, nil
	}
	return reconcile.Result{}, err
}

// renew looks again, at the API server itself, before something is done that the
// cache may be too late for.
func (r *Reconciler) renew(ctx context.Context, s *Observed, next Step) (*Observed, Step, error) {
	if !r.mustRenew(s, next.Action) {
		return s, next, nil
	}
	s, err := r.observe(ctx, r.live, client.ObjectKeyFromObject(s.Snapshot.Object))
	if err != nil {
		return nil, Step{}, err
	}
	return s, r.decide(s), nil
}

// mustRenew tells whether that is so. A snapshot that gets a content may be gone, let
// go by this process itself; one that is not protected yet is written first, which
// fails then. A group that lets its content go may have a member that a provisioner
// has begun to restore.
func (r *Reconciler) mustRenew(s *Observed, next Action) bool {
	switch next {
	case Create, Adopt:
		return r.held(s.Snapshot) || r.Live
	case Release:
		return r.Live && !r.Keys.DeletionAllowed(s.Content.Object)
	default:
		return false
	}
}

// do takes the Step, and returns after how long to come back; 0 for when
// something changes.
func (r *Reconciler) do(ctx context.Context, s *Observed, next Step) (time.Duration, error) {
	switch next.Action {
	case Refuse:
		return 0, next.Problem
	case Create:
		return r.create(ctx, s)
	case Adopt:
		if err := r.adopt(ctx, s); err != nil {
			return 0, err
		}
		return r.follow(ctx, s)
	case Follow:
		return r.follow(ctx, s)
	default:
		return r.end(ctx, s, next)
	}
}

// end takes a Step with a snapshot that is being deleted.
func (r *Reconciler) end(ctx context.Context, s *Observed, next Step) (time.Duration, error) {
	switch next.Action {
	case Wait:
		r.events.Warning(s.Snapshot.Object, next.Problem.Reason, next.Problem.Text)
	case Explain:
		return 0, r.explain(ctx, s, next.Problem)
	case Strand:
		return r.strand(ctx, s, next.Problem)
	case Release:
		return 0, r.release(ctx, s)
	case LetGo:
		return 0, r.letGo(ctx, s)
	default:
	}
	return 0, nil
}
