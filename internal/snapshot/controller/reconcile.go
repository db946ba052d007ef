package controller

import (
	"context"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// Reconciler reconciles the snapshots of one kind. It keeps no state that a restart may
// not lose.
type Reconciler struct {
	rules
	client    client.Client
	apiReader client.Reader // uncached
	events    *kube.Events
	options   *Options
	durations *snapshot.OperationDurations
	now       func() time.Time
}

// NewReconciler makes the reconciler of a kind of snapshots, with a cached client and an
// uncached reader. NewController, SetUpOrphans and SetUpStranded add its controllers to a
// manager.
func NewReconciler(c client.Client, apiReader client.Reader, kind SnapshotKind, events *kube.Events, o *Options) *Reconciler {
	return &Reconciler{
		rules: newRules(kind, o), client: c, apiReader: apiReader,
		events: events, options: o, durations: snapshot.OperationMetrics, now: time.Now,
	}
}

// Reconcile takes one snapshot a step further: it observes, decides, executes one step,
// and reports.
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

// requeueOnConflict retries soon after a conflict, and reports any other error.
func (r *Reconciler) requeueOnConflict(err error) (reconcile.Result, error) {
	if kube.IsConflict(err) {
		return reconcile.Result{RequeueAfter: kube.RetryAfterConflict(r.options.RetryStart)}, nil
	}
	return reconcile.Result{}, err
}

// refresh observes again, from the API server, and decides again, if a stale cache could
// make the step wrong.
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

// needsRefresh reports whether a stale cache could make the step wrong. A snapshot that is
// to get a content may be gone already, because this process has removed its finalizers.
// If it has no finalizers yet, they are written first, and that fails if the snapshot is
// gone. A provisioner may have begun to restore a member of the group whose content is to
// be deleted.
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

// execute takes the step. It returns when to reconcile again; 0 to wait for events.
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
