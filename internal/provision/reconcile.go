package provision

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/provision/pending"
	"github.com/holdfast-io/holdfast/internal/provision/pernode"
	"github.com/holdfast-io/holdfast/internal/provision/placement"
	"github.com/holdfast-io/holdfast/internal/provision/protection"
	"github.com/holdfast-io/holdfast/internal/provision/source"
)

// Reconciler creates the volumes of claims. Between calls it keeps in memory only what
// package pending and package pernode document.
type Reconciler struct {
	client     client.Client
	apiReader  client.Reader // uncached
	driver     *csi.Driver
	events     *kube.Events
	pending    *pending.Store
	protection *protection.Controller
	race       *pernode.Race
	sources    source.Resolver
	nodes      *placement.Cache
	volumes    volumeWaiter
	snapshots  snapshotStates
	options    *Options
	log        logr.Logger // for event handlers, which have none in their context
}

// Reconcile takes the next step for one claim. The claim may be gone: its pending
// operation is finished all the same.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	s, err := r.observe(ctx, request.NamespacedName)
	if err != nil {
		r.reportInvalid(s, err)
		return reconcile.Result{}, err
	}
	next := decide(s, r.options)
	if s.claim != nil && next.action != claimForNode {
		r.race.Settled(s.claim.UID)
	}
	after, err := r.act(ctx, s, next)
	r.reportDenied(s, err)
	r.reportInvalid(s, err)
	return reconcile.Result{RequeueAfter: after}, err
}

// act takes one step. It returns when to reconcile again, 0 for when something changes,
// or an error for the work queue's backoff.
func (r *Reconciler) act(ctx context.Context, s state, next decision) (after time.Duration, err error) {
	switch next.action {
	case emitEvent:
		return 0, r.emit(ctx, s, next)
	case claimForNode:
		return r.claimForThisNode(ctx, s)
	case reschedule:
		return 0, errors.Join(r.emit(ctx, s, next), r.unselectNode(ctx, s.claim))
	case start:
		return r.start(ctx, s)
	case resume:
		return r.resume(ctx, s)
	case none:
	}
	return 0, nil
}

// start records a new operation and executes it.
func (r *Reconciler) start(ctx context.Context, s state) (time.Duration, error) {
	defer r.pending.Start(s.claim.UID)()
	op, err := r.record(ctx, s)
	if err != nil {
		r.reportFailure(s, err)
	}
	if err != nil || op == nil {
		return r.retryAfter(err, s.claim.CreationTimestamp.Time)
	}
	return r.execute(ctx, s, op)
}

// record plans the claim's volume and records the operation. It returns the operation to
// execute, nil for none.
func (r *Reconciler) record(ctx context.Context, s state) (*pending.Operation, error) {
	if err := r.observeReferences(ctx, &s); err != nil {
		return nil, fmt.Errorf("looking up what the claim names: %w", err)
	}
	planned, err := plan(s, r.options)
	if err != nil {
		return nil, fmt.Errorf("planning the volume: %w", err)
	}
	// The secret is read before anything is recorded, so that a claim whose secret has
	// never existed leaves nothing behind.
	if err := r.readSecret(ctx, planned); err != nil {
		return nil, err
	}
	if err := r.pending.ReserveName(ctx, planned); err != nil {
		return nil, err
	}
	op, err := r.recordPlanned(ctx, s, planned)
	if err != nil || op == nil || op.Volume.Name != planned.Volume.Name {
		r.pending.ReleaseName(planned)
	}
	return op, err
}

// recordPlanned records a planned operation, unless the claim has one already, and
// protects its source. It returns the operation to execute, nil for none.
func (r *Reconciler) recordPlanned(ctx context.Context, s state, planned *pending.Operation) (*pending.Operation, error) {
	op, created, err := r.pending.Write(ctx, planned)
	switch {
	case err != nil:
		return nil, err
	case op.Node != r.options.Node.Name:
		return nil, otherNodeError(op)
	case !created:
		return op, r.protection.ProtectIfPossible(ctx, op)
	}
	return r.verify(ctx, s, op)
}

// verify checks, now that the operation is recorded, what may have changed just before
// that. If something has, it deletes the record: the driver has not been called yet.
func (r *Reconciler) verify(ctx context.Context, s state, op *pending.Operation) (*pending.Operation, error) {
	selected, err := r.options.Node.IsStillSelected(ctx, r.apiReader, s.claim)
	if err == nil && selected {
		err = r.protection.Protect(ctx, op)
	}
	if op.SourceHeldByClaim && errors.Is(err, protection.ErrDeleting) {
		err = nil
	}
	if err != nil || !selected {
		return nil, errors.Join(err, r.finish(ctx, op))
	}
	return op, nil
}

// resume executes an operation that the cache shows. The cache may be stale. Creating a
// volume for an operation whose record is gone would orphan the volume, and creating one
// while its PersistentVolume is being deleted may create a volume that outlives it. So
// both are read from the API server.
func (r *Reconciler) resume(ctx context.Context, s state) (time.Duration, error) {
	op, err := r.pending.Read(ctx, s.operation.ClaimUID())
	if apierrors.IsNotFound(err) || err == nil && op.Node != r.options.Node.Name {
		return 0, r.finish(ctx, s.operation) // Another node may have recorded one of that name since.
	}
	if err != nil {
		return 0, err
	}
	return r.resumeCurrent(ctx, s, op)
}

// resumeCurrent executes an operation that was just read from the API server, unless its
// PersistentVolume exists.
func (r *Reconciler) resumeCurrent(ctx context.Context, s state, op *pending.Operation) (time.Duration, error) {
	if err := r.protection.ProtectIfPossible(ctx, op); err != nil {
		return 0, err
	}
	existing := &corev1.PersistentVolume{}
	err := r.apiReader.Get(ctx, types.NamespacedName{Name: op.Volume.Name}, existing)
	switch {
	case apierrors.IsNotFound(err):
		return r.execute(ctx, s, op)
	case err != nil:
		return 0, fmt.Errorf("reading PersistentVolume %s: %w", op.Volume.Name, err)
	case isBeingDeleted(existing):
		return r.options.RetryStart, nil
	case existing.Spec.ClaimRef != nil && existing.Spec.ClaimRef.UID == op.ClaimUID():
		return 0, r.finish(ctx, op)
	default:
		return r.execute(ctx, s, op) // Another claim's has the name. Creating ours reports that.
	}
}

// finish deletes the record of an operation and has its source checked. The source is
// checked even if the deletion may have failed: no volume is being filled from it any
// more, and if only the response was lost there is no further reconcile.
func (r *Reconciler) finish(ctx context.Context, op *pending.Operation) error {
	err := r.pending.Delete(ctx, op)
	if op.Source != nil {
		r.protection.Enqueue(*op.Source)
	}
	return err
}
