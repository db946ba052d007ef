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
)

// Reconciler takes claims to their volumes. It remembers nothing between calls:
// what it needs it reads from the cluster and asks the driver.
type Reconciler struct {
	client  client.Client
	live    client.Reader // past the cache
	driver  *csi.Driver
	events  *kube.Events
	journal *journal
	guard   *guard
	race    *race
	names   names
	atlas   *atlas
	options *Options
	log     logr.Logger // for what happens outside of Reconcile
}

// Reconcile takes one claim a step closer to its volume. The claim may be gone:
// what was begun for it is brought to an end all the same.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	s, err := r.observe(ctx, request.NamespacedName)
	if err != nil {
		return reconcile.Result{}, err
	}
	next := decide(s, r.options)
	if s.claim != nil && next.kind != take {
		r.race.settled(s.claim.UID)
	}
	again, err := r.do(ctx, s, next)
	return reconcile.Result{RequeueAfter: again}, err
}

// do takes one step. It returns after how long to look again, 0 for when
// something changes, or an error for after a pause that grows.
func (r *Reconciler) do(ctx context.Context, s seen, next step) (again time.Duration, err error) {
	switch next.kind {
	case say:
		return 0, r.tell(ctx, s, next)
	case take:
		return r.take(ctx, s)
	case moveOn:
		return 0, errors.Join(r.tell(ctx, s, next), r.unselectNode(ctx, s.claim))
	case begin:
		defer r.journal.begin(s.claim.UID)()
		i, err := r.begin(ctx, s)
		if err != nil || i == nil {
			return r.retry(err, s.claim.CreationTimestamp.Time)
		}
		return r.carry(ctx, s, i)
	case carry:
		return r.resume(ctx, s)
	case rest:
	}
	return 0, nil
}

func (r *Reconciler) tell(ctx context.Context, s seen, next step) error {
	if next.reason == kube.ReasonProvisioningFailed {
		r.options.Metrics.failure(s)
	}
	switch {
	case r.options.Node.anyones(s.claim):
		return r.announce(ctx, s.claim, next)
	case next.reason == kube.ReasonProvisioningFailed:
		r.events.Warning(s.claim, next.reason, next.message)
	default:
		r.events.Normal(s.claim, next.reason, next.message)
	}
	return nil
}

// fails tells the owner of a claim, if there still is one, what went wrong.
func (r *Reconciler) fails(s seen, err error) {
	r.options.Metrics.failure(s)
	if s.claim != nil {
		r.events.Warning(s.claim, kube.ReasonProvisioningFailed, err.Error())
	}
}

// begin puts the intent on record; nil if the claim turns out not to be ours.
func (r *Reconciler) begin(ctx context.Context, s seen) (*intent, error) {
	i, err := r.intend(ctx, s)
	if err != nil {
		r.fails(s, err)
		return nil, err
	}
	return i, nil
}

func (r *Reconciler) intend(ctx context.Context, s seen) (*intent, error) {
	if err := r.lookUp(ctx, &s); err != nil {
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
	if err := r.reserve(ctx, planned); err != nil {
		return nil, err
	}
	i, err := r.record(ctx, s, planned)
	if err != nil || i == nil || i.volume.Name != planned.volume.Name {
		r.names.free(planned.volume.Name, planned.claimUID())
	}
	return i, err
}

// record puts a planned intent on record and returns the one that is to be
// carried out, nil for none.
func (r *Reconciler) record(ctx context.Context, s seen, planned *intent) (*intent, error) {
	i, fresh, err := r.journal.write(ctx, planned)
	switch {
	case err != nil:
		return nil, err
	case i.node != r.options.Node.Name:
		return nil, othersIntent(i)
	case !fresh:
		return i, r.guard.keep(ctx, i)
	}
	return r.prove(ctx, s, i)
}

// othersIntent tells that an intent is on record that is not ours to carry out.
func othersIntent(i *intent) error {
	who := "a provisioner for all nodes"
	if i.node != "" {
		who = "the provisioner of node " + i.node
	}
	return fmt.Errorf("%s may have made the volume, so Lease %s says: waiting for it; if it is gone for good, delete that Lease", who, i.record)
}

// prove makes sure, once the intent is on record, of what may have changed just
// before. If something has, the intent goes: the driver has not been asked yet.
func (r *Reconciler) prove(ctx context.Context, s seen, i *intent) (*intent, error) {
	ours, err := r.stillOurs(ctx, s)
	if err == nil && ours {
		err = r.guard.protect(ctx, i)
	}
	if i.keptByClaim && errors.Is(err, errGoing) {
		err = nil
	}
	if err != nil || !ours {
		return nil, errors.Join(err, r.forget(ctx, i))
	}
	return i, nil
}

// lookUp reads what only claims of some kinds need.
func (r *Reconciler) lookUp(ctx context.Context, s *seen) (err error) {
	if s.class, err = r.options.Plugin.Class(ctx, s.class); err != nil {
		return err
	}
	if from, ours := sourceOf(s.claim); from != nil && ours {
		if s.origin, err = r.find(ctx, *from, s.claim.Namespace); err != nil {
			return err
		}
	}
	if name := r.options.attributesClass(s.claim); name != "" {
		s.attributes, err = r.findAttributes(ctx, name)
	}
	return err
}

// forget takes an intent that is done off the record. Its source is let go of
// even if that may have failed: nothing is being filled from it any more, and if
// the answer was lost nobody will come here again.
func (r *Reconciler) forget(ctx context.Context, i *intent) error {
	err := r.journal.erase(ctx, i)
	r.names.free(i.volume.Name, i.claimUID())
	if i.source != nil {
		r.guard.letGo(*i.source)
	}
	return err
}
