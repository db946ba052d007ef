package bind

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
	single "github.com/holdfast-io/holdfast/internal/snapshot/bind"
)

// Reconciler works on VolumeGroupSnapshots. It remembers nothing that a restart
// may not forget.
type Reconciler struct {
	client  client.Client
	live    client.Reader // past the cache
	events  *kube.Events
	options *single.Options
	singles *single.Groups // to whom members are handed when their group is gone
	kind    schema.GroupVersionKind
	waits   *snapshot.Operations
	now     func() time.Time
}

// Reconcile takes one group a step further.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	s, err := r.observe(ctx, r.client, request.NamespacedName)
	if err != nil {
		return reconcile.Result{}, err
	}
	if s.group != nil {
		r.waits.Seen(s.progress())
	}
	next := decide(s, r.options.Distributed)
	// Before a group gets a content it is looked at again, at the API server itself: it
	// may be gone, and the cache not show it yet.
	if next.action == create || next.action == adopt {
		if s, err = r.observe(ctx, r.live, request.NamespacedName); err != nil {
			return reconcile.Result{}, err
		}
		next = decide(s, r.options.Distributed)
	}
	after, err := r.do(ctx, s, next)
	if kube.IsSuperseded(err) {
		return reconcile.Result{RequeueAfter: r.options.RetryStart}, nil
	}
	return reconcile.Result{RequeueAfter: after}, r.failed(ctx, s, err)
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
	default:
		return 0, r.end(ctx, s, next)
	}
}

// end takes a step on the way out.
func (r *Reconciler) end(ctx context.Context, s *seen, next step) error {
	switch next.action {
	case wait:
		r.events.Warning(s.group, next.problem.Reason, next.problem.Text)
	case release:
		return r.release(ctx, s)
	case letGo:
		return r.letGo(ctx, s)
	case scatter:
		return r.scatter(ctx, s)
	default: // Nothing.
	}
	return nil
}
