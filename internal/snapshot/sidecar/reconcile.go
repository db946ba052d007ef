package sidecar

import (
	"context"
	"fmt"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/keymutex"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// Reconciler creates and deletes the snapshots of one kind of contents. It keeps no state
// that must survive a restart.
type Reconciler struct {
	client    client.Client
	apiReader client.Reader // uncached
	driver    *csi.Driver
	events    *kube.Events
	kind      ContentKind
	keys      snapshot.Keys
	options   *Options
	keyMutex  keymutex.KeyMutex // by content name
	now       func() time.Time
}

// A queue handles the contents to delete, or all others: deletions do not delay new snapshots.
type queue struct {
	*Reconciler
	deletions bool
}

// Reconcile does the next step for a content, if it belongs to this queue.
func (q queue) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	release, err := q.keyMutex.Lock(ctx, request.Name)
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("waiting for the other queue: %w", err)
	}
	defer release()
	s, err := q.observe(ctx, q.client, request.Name)
	if err != nil || s == nil || q.canDelete(s) != q.deletions {
		return reconcile.Result{}, err
	}
	next := q.decide(s)
	if s, next, err = q.reread(ctx, s, next); err != nil || s == nil {
		return reconcile.Result{}, err
	}
	after, err := q.do(ctx, s, next)
	if kube.IsConflict(err) {
		return reconcile.Result{RequeueAfter: kube.RetryAfterConflict(q.options.RetryStart)}, nil
	}
	return reconcile.Result{RequeueAfter: after}, q.reportError(ctx, s, err)
}

// reread observes the content again, from the API server, before a repeated CreateSnapshot.
// This process, or one before it, may have deleted the snapshot and removed the finalizer.
// The cache may not show that yet, and the call would create the snapshot again. A content
// without the being-created annotation is patched before the call, and the patch fails if
// the content has changed.
func (r *Reconciler) reread(ctx context.Context, s *state, next step) (*state, step, error) {
	if next.action != resolve && (next.action != create || !r.isBeingCreated(s)) {
		return s, next, nil
	}
	s, err := r.observe(ctx, r.apiReader, s.Object.GetName())
	if err != nil || s == nil {
		return nil, step{}, err
	}
	return s, r.decide(s), nil
}

// observe reads a content with the given reader, and its class from the cache. It returns nil
// if the content does not exist.
func (r *Reconciler) observe(ctx context.Context, from client.Reader, name string) (*state, error) {
	o := r.kind.New()
	if err := from.Get(ctx, client.ObjectKey{Name: name}, o); err != nil {
		if client.IgnoreNotFound(err) == nil {
			return nil, nil
		}
		return nil, fmt.Errorf("reading content %s: %w", name, err)
	}
	s := &state{Content: r.kind.Read(o)}
	if s.Class == "" {
		return s, nil
	}
	var err error
	if s.class, err = r.kind.ReadClass(ctx, r.client, s.Class); err != nil {
		return nil, fmt.Errorf("reading class %s: %w", s.Class, err)
	}
	return s, nil
}

// do executes a step. It returns after how long to requeue the content, or 0 if a change will
// do that.
func (r *Reconciler) do(ctx context.Context, s *state, next step) (time.Duration, error) {
	switch next.action {
	case reportProblem:
		return 0, next.problem
	case create:
		return r.create(ctx, s)
	case clearAnnotation:
		return r.finishCreate(ctx, s, s.Ready)
	case poll:
		return r.poll(ctx, s)
	default:
		return 0, r.doDeletion(ctx, s, next)
	}
}

// doDeletion executes a step of the deletion.
func (r *Reconciler) doDeletion(ctx context.Context, s *state, next step) error {
	switch next.action {
	case resolve:
		return r.resolveOutcome(ctx, s)
	case deleteSnapshot:
		return r.deleteSnapshot(ctx, s)
	case removeFinalizer:
		return r.removeFinalizer(ctx, s)
	default:
		return nil
	}
}
