package retention

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/kube"
)

const (
	// maxRequeueInterval is after how long a policy is reconciled at the latest, so that a
	// clock that is set forward is noticed.
	maxRequeueInterval = 10 * time.Minute
	// batchSize is how many Checkpoints are deleted before they are read again.
	batchSize = 50
	// pageSize is how many are read at a time.
	pageSize = 100
	// policyField is the field by which the Checkpoints of a policy are selected, in the cache
	// and at the API server.
	policyField = "spec.policyRef"
)

// Reasons of events.
const (
	reasonExpired        = "CheckpointsExpired"
	reasonDeletionFailed = "DeletionFailed"
)

// Reconciler deletes the expired Checkpoints of policies.
type Reconciler struct {
	client    client.Client
	apiReader client.Reader // uncached
	events    *kube.Events
	options   *Options
	wallClock func() time.Time
	memory    memory
}

// clocks reads both clocks. If the API server's time is unknown, the machine's has to do.
func (r *Reconciler) clocks() reading {
	own := r.wallClock()
	server, known := r.options.Clock.Now()
	switch {
	case !known:
		return reading{own, own}
	case server.Before(own):
		return reading{server, own}
	default:
		return reading{own, server}
	}
}

// Reconcile deletes the expired Checkpoints of one policy and updates its status.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	var p *v1alpha1.CheckpointPolicy
	if err := kube.GetIfExists(ctx, r.client, request.NamespacedName, &p); err != nil {
		return reconcile.Result{}, err
	}
	if p == nil || !p.DeletionTimestamp.IsZero() {
		r.memory.forget(request.Name)
		return reconcile.Result{}, nil
	}
	left, err := r.reconcile(ctx, p)
	if kube.IsConflict(err) {
		return reconcile.Result{RequeueAfter: kube.RetryAfterConflict(r.options.RetryStart)}, nil
	}
	r.events.WarnIfDenied(p, reasonDeletionFailed, err)
	return reconcile.Result{RequeueAfter: left}, err
}

// reconcile returns after which time to look again if nothing changes.
func (r *Reconciler) reconcile(ctx context.Context, p *v1alpha1.CheckpointPolicy) (time.Duration, error) {
	var list v1alpha1.CheckpointList
	if err := r.client.List(ctx, &list, client.MatchingFields{policyField: p.Name}, client.UnsafeDisableDeepCopy); err != nil {
		return 0, fmt.Errorf("listing the Checkpoints of CheckpointPolicy %s: %w", p.Name, err)
	}
	next := decide(r.memory.withoutDeleted(p.Name, pointers(&list)), p.Spec.Retention, r.clocks())
	if len(next.expired) > 0 {
		var err error
		if next, err = r.apply(ctx, p); err != nil {
			return 0, err
		}
	}
	after, err := r.report(ctx, p, next)
	switch {
	case next.rejected != nil:
		return 0, errors.Join(next.rejected, err) // It is retried with backoff.
	case err != nil:
		return 0, err
	case !next.next.IsZero():
		after = min(after, max(next.next.Sub(r.clocks().earlier), time.Millisecond))
	}
	return after, nil
}

// apply deletes the expired Checkpoints, as the API server knows them, and returns what is
// left to do. It ends with the first batch of which one cannot be deleted.
func (r *Reconciler) apply(ctx context.Context, p *v1alpha1.CheckpointPolicy) (plan, error) {
	for {
		live, err := r.confirm(ctx, p)
		if err != nil {
			return plan{}, err
		}
		next := decide(live, p.Spec.Retention, r.clocks())
		batch := next.expired[:min(batchSize, len(next.expired))]
		later := next.expired[len(batch):]
		next.expired, next.rejected = r.deleteBatch(ctx, p, batch)
		if len(next.expired) > 0 || len(later) == 0 {
			next.expired = slices.Concat(next.expired, later)
			return next, nil
		}
	}
}

// confirm reads a policy and its Checkpoints from the API server. It returns a conflict if
// the policy is another one than in the cache.
func (r *Reconciler) confirm(ctx context.Context, p *v1alpha1.CheckpointPolicy) ([]*v1alpha1.Checkpoint, error) {
	var current *v1alpha1.CheckpointPolicy
	if err := kube.GetIfExists(ctx, r.apiReader, client.ObjectKeyFromObject(p), &current); err != nil {
		return nil, err
	}
	if current == nil || current.UID != p.UID || current.Generation != p.Generation || !current.DeletionTimestamp.IsZero() {
		return nil, kube.Conflict("CheckpointPolicy %s has changed since it was read", p.Name)
	}
	namespaces := r.options.Namespaces
	if len(namespaces) == 0 {
		namespaces = []string{""}
	}
	var all []*v1alpha1.Checkpoint
	for _, namespace := range namespaces {
		err := kube.EachPage(ctx, r.apiReader, pageSize, func(page *v1alpha1.CheckpointList) error {
			for _, c := range pointers(page) {
				c.ManagedFields = nil // They would be most of the memory.
				all = append(all, c)
			}
			return nil
		}, client.InNamespace(namespace), client.MatchingFields{policyField: p.Name})
		if err != nil {
			return nil, fmt.Errorf("listing the Checkpoints of CheckpointPolicy %s at the API server: %w", p.Name, err)
		}
	}
	return all, nil
}

// deleteBatch deletes Checkpoints. It goes on with the others if one cannot be deleted, and
// returns those. One that has changed since it was read is left alone: its change is an
// event, which leads to another decision.
func (r *Reconciler) deleteBatch(ctx context.Context, p *v1alpha1.CheckpointPolicy, batch []expired) (left []expired, err error) {
	var deleted []expired
	var errs []error
	for _, e := range batch {
		c := e.checkpoint
		err := r.client.Delete(ctx, c, client.Preconditions{UID: &c.UID, ResourceVersion: &c.ResourceVersion})
		switch {
		case err == nil:
			deleted = append(deleted, e)
			expiredTotal.WithLabelValues(string(e.limit)).Inc()
			r.memory.addDeleted(p.Name, c.UID)
		case !kube.IsStale(err):
			left = append(left, e)
			errs = append(errs, fmt.Errorf("deleting Checkpoint %s/%s, which is expired: %w", c.Namespace, c.Name, err))
		}
	}
	if len(deleted) > 0 {
		r.events.Normal(p, reasonExpired, message(deleted))
	}
	return left, errors.Join(errs...)
}

// pointers returns pointers to the items of a list.
func pointers(list *v1alpha1.CheckpointList) []*v1alpha1.Checkpoint {
	all := make([]*v1alpha1.Checkpoint, len(list.Items))
	for i := range list.Items {
		all[i] = &list.Items[i]
	}
	return all
}
