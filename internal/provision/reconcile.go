package provision

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-logr/logr"
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

// Reconciler takes claims to their volumes. It remembers nothing between calls:
// what it needs it reads from the cluster and asks the driver.
type Reconciler struct {
	client     client.Client
	apiReader  client.Reader // past the cache
	driver     *csi.Driver
	events     *kube.Events
	pending    *pending.Store
	protection *protection.Controller
	race       *pernode.Race
	sources    source.Resolver
	nodes      *placement.Cache
	options    *Options
	log        logr.Logger // for what happens outside of Reconcile
}

// Reconcile takes one claim a step closer to its volume. The claim may be gone:
// what was begun for it is brought to an end all the same.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	s, err := r.observe(ctx, request.NamespacedName)
	if err != nil {
		return reconcile.Result{}, err
	}
	next := decide(s, r.options)
	if s.claim != nil && next.action != claimForNode {
		r.race.Settled(s.claim.UID)
	}
	again, err := r.act(ctx, s, next)
	return reconcile.Result{RequeueAfter: again}, err
}

// act takes one step. It returns after how long to look again, 0 for when
// something changes, or an error for after a pause that grows.
func (r *Reconciler) act(ctx context.Context, s state, next decision) (again time.Duration, err error) {
	switch next.action {
	case emitEvent:
		return 0, r.emit(ctx, s, next)
	case claimForNode:
		return r.claimForThisNode(ctx, s)
	case reschedule:
		return 0, errors.Join(r.emit(ctx, s, next), r.unselectNode(ctx, s.claim))
	case start:
		defer r.pending.Start(s.claim.UID)()
		op, err := r.prepare(ctx, s)
		if err != nil || op == nil {
			return r.retryAfter(err, s.claim.CreationTimestamp.Time)
		}
		return r.execute(ctx, s, op)
	case resume:
		return r.resume(ctx, s)
	case none:
	}
	return 0, nil
}

func (r *Reconciler) emit(ctx context.Context, s state, next decision) error {
	if next.reason == kube.ReasonProvisioningFailed {
		r.options.Metrics.recordFailure(s)
	}
	switch {
	case r.options.Node.IsUnassigned(s.claim):
		return r.emitOnce(ctx, s.claim, next)
	case next.reason == kube.ReasonProvisioningFailed:
		r.events.Warning(s.claim, next.reason, next.message)
	default:
		r.events.Normal(s.claim, next.reason, next.message)
	}
	return nil
}

// reportFailure tells the owner of a claim, if there still is one, what went wrong.
func (r *Reconciler) reportFailure(s state, err error) {
	r.options.Metrics.recordFailure(s)
	if s.claim != nil {
		r.events.Warning(s.claim, kube.ReasonProvisioningFailed, err.Error())
	}
}

// prepare puts the intent on record; nil if the claim turns out not to be ours.
func (r *Reconciler) prepare(ctx context.Context, s state) (*pending.Operation, error) {
	op, err := r.planAndRecord(ctx, s)
	if err != nil {
		r.reportFailure(s, err)
		return nil, err
	}
	return op, nil
}

func (r *Reconciler) planAndRecord(ctx context.Context, s state) (*pending.Operation, error) {
	if err := r.readReferences(ctx, &s); err != nil {
		return nil, fmt.Errorf("looking up what the claim names: %w", err)
	}
	planned, err := plan(s, r.options)
	if err != nil {
		return nil, fmt.Errorf("planning the volume: %w", err)
	}
	// Before anything is on record, so that a claim whose secret never was there
	// leaves nothing behind.
	if err := r.readSecret(ctx, planned); err != nil {
		return nil, err
	}
	if err := r.pending.ReserveName(ctx, planned); err != nil {
		return nil, err
	}
	op, err := r.record(ctx, s, planned)
	if err != nil || op == nil || op.Volume.Name != planned.Volume.Name {
		r.pending.ReleaseName(planned)
	}
	return op, err
}

// record puts a planned intent on record and returns the one that is to be
// carried out, nil for none.
func (r *Reconciler) record(ctx context.Context, s state, planned *pending.Operation) (*pending.Operation, error) {
	op, fresh, err := r.pending.Write(ctx, planned)
	switch {
	case err != nil:
		return nil, err
	case op.Node != r.options.Node.Name:
		return nil, otherNodeError(op)
	case !fresh:
		return op, r.protection.ProtectIfPossible(ctx, op)
	}
	return r.verify(ctx, s, op)
}

// otherNodeError tells that an intent is on record that is not ours to carry out.
func otherNodeError(op *pending.Operation) error {
	owner := "a provisioner for all nodes"
	if op.Node != "" {
		owner = "the provisioner of node " + op.Node
	}
	return fmt.Errorf("%s may have made the volume, so Lease %s says: waiting for it; if it is gone for good, delete that Lease", owner, op.Record)
}

// verify makes sure, once the intent is on record, of what may have changed just
// before. If something has, the intent goes: the driver has not been asked yet.
func (r *Reconciler) verify(ctx context.Context, s state, op *pending.Operation) (*pending.Operation, error) {
	ours, err := r.options.Node.IsStillSelected(ctx, r.apiReader, s.claim)
	if err == nil && ours {
		err = r.protection.Protect(ctx, op)
	}
	if op.SourceHeldByClaim && errors.Is(err, protection.ErrDeleting) {
		err = nil
	}
	if err != nil || !ours {
		return nil, errors.Join(err, r.finish(ctx, op))
	}
	return op, nil
}

// readReferences reads what only claims of some kinds need.
func (r *Reconciler) readReferences(ctx context.Context, s *state) (err error) {
	if s.class, err = r.options.Plugin.ClassToCSI(ctx, s.class); err != nil {
		return err
	}
	if from, ours := source.Of(s.claim); from != nil && ours {
		if s.source, err = r.sources.Resolve(ctx, *from, s.claim.Namespace); err != nil {
			return err
		}
	}
	if name := r.options.attributesClass(s.claim); name != "" {
		s.attributes, err = r.readAttributesClass(ctx, name)
	}
	return err
}

// finish takes an intent that is done off the record. Its source is let go of
// even if that may have failed: nothing is being filled from it any more, and if
// the answer was lost nobody will come here again.
func (r *Reconciler) finish(ctx context.Context, op *pending.Operation) error {
	err := r.pending.Delete(ctx, op)
	if op.Source != nil {
		r.protection.Enqueue(*op.Source)
	}
	return err
}
