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
	rules
	client    client.Client
	apiReader client.Reader // past the cache
	events    *kube.Events
	options   *Options
	durations *snapshot.OperationDurations
	now       func() time.Time
}

// NewReconciler makes the engine for a kind of snapshots, with a client that reads from a
// cache and one that does not. What Controller has begun and FindLost are to be
// added to the manager.
func NewReconciler(c client.Client, apiReader client.Reader, kind SnapshotKind, events *kube.Events, o *Options) *Reconciler {
	return &Reconciler{
		rules: newRules(kind, o), client: c, apiReader: apiReader,
		events: events, options: o, durations: snapshot.OperationMetrics, now: time.Now,
	}
}

// Reconcile takes one snapshot a Step further.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	s, err := r.observe(ctx, r.client, request.NamespacedName)
	if err != nil {
		return reconcile.Result{}, err
	}
	if s.Snapshot == nil {
		return r.requeueOnConflict(r.kind.AfterDeletion(ctx, request.NamespacedName))
	}
	r.durations.ObserveStart(r.progress(s))
	next := r.decide(s)
	if s, next, err = r.refresh(ctx, s, next); err != nil {
		return reconcile.Result{}, err
	}
	after, err := r.execute(ctx, s, next)
	if kube.IsConflict(err) {
		return r.requeueOnConflict(err)
	}
	return reconcile.Result{RequeueAfter: after}, r.reportError(ctx, s, err)
}

// requeueOnConflict comes back soon for what was superseded.
func (r *Reconciler) requeueOnConflict(err error) (reconcile.Result, error) {
	if kube.IsConflict(err) {
		return reconcile.Result{RequeueAfter: kube.RetryAfterConflict(r.options.RetryStart)}, nil
	}
	return reconcile.Result{}, err
}

// refresh looks again, at the API server itself, before something is done that the
// cache may be too late for.
func (r *Reconciler) refresh(ctx context.Context, s *Observed, next Step) (*Observed, Step, error) {
	if !r.needsRefresh(s, next.Action) {
		return s, next, nil
	}
	s, err := r.observe(ctx, r.apiReader, client.ObjectKeyFromObject(s.Snapshot.Object))
	if err != nil {
		return nil, Step{}, err
	}
	return s, r.decide(s), nil
}

// needsRefresh tells whether that is so. A snapshot that gets a content may be gone, let
// go by this process itself; one that is not protected yet is written first, which
// fails then. A group that lets its content go may have a member that a provisioner
// has begun to restore.
func (r *Reconciler) needsRefresh(s *Observed, next Action) bool {
	switch next {
	case Create, Bind:
		return r.hasFinalizer(s.Snapshot) || r.ReadFromAPIServer
	case DeleteContent:
		return r.ReadFromAPIServer && !r.Keys.DeletionAllowed(s.Content.Object)
	default:
		return false
	}
}

// execute takes the Step, and returns after how long to come back; 0 for when
// something changes.
func (r *Reconciler) execute(ctx context.Context, s *Observed, next Step) (time.Duration, error) {
	switch next.Action {
	case Reject:
		return 0, next.Problem
	case Create:
		return r.createContent(ctx, s)
	case Bind:
		if err := r.bindContent(ctx, s); err != nil {
			return 0, err
		}
		return r.syncStatus(ctx, s)
	case SyncStatus:
		return r.syncStatus(ctx, s)
	default:
		return r.executeDeletion(ctx, s, next)
	}
}
