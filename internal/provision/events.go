package provision

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/provision/pending"
)

// emit emits the event of a decision on its claim. If all nodes decide about the claim,
// only one of them emits it.
func (r *Reconciler) emit(ctx context.Context, s state, d decision) error {
	if d.reason == kube.ReasonProvisioningFailed {
		r.options.Metrics.recordFailure(s)
	}
	switch {
	case r.options.Node.IsUnassigned(s.claim):
		return r.emitOnce(ctx, s.claim, d)
	case d.reason == kube.ReasonProvisioningFailed:
		r.events.Warning(s.claim, d.reason, d.message)
	default:
		r.events.Normal(s.claim, d.reason, d.message)
	}
	return nil
}

// emitOnce emits an event that every node could emit, once for all of them.
func (r *Reconciler) emitOnce(ctx context.Context, claim *corev1.PersistentVolumeClaim, d decision) error {
	eventType := corev1.EventTypeNormal
	if d.reason == kube.ReasonProvisioningFailed {
		eventType = corev1.EventTypeWarning
	}
	return r.events.EmitOnce(ctx, r.client, claim, kube.Event{Type: eventType, Reason: d.reason, Message: d.message})
}

// reportFailure counts a failed attempt and emits an event on the claim, if it exists.
func (r *Reconciler) reportFailure(s state, err error) {
	r.options.Metrics.recordFailure(s)
	if s.claim != nil {
		r.events.Warning(s.claim, kube.ReasonProvisioningFailed, kube.Message(err))
	}
}

// reportDenied emits an event about a request that the API server denies, on the claim or, if
// that is gone, on the operation's Lease. It is not sent again if [Reconciler.reportFailure]
// has reported the same.
func (r *Reconciler) reportDenied(s state, err error) {
	switch {
	case s.claim != nil:
		r.events.WarnIfDenied(s.claim, kube.ReasonProvisioningFailed, err)
	case s.operation != nil:
		r.events.WarnIfDenied(s.operation.Lease(), kube.ReasonProvisioningFailed, err)
	}
}

// reportInvalid emits an event about a Lease that is not carried out, on the claim or,
// without a claim, on the Lease.
func (r *Reconciler) reportInvalid(s state, err error) {
	var bad *pending.InvalidError
	switch {
	case !errors.As(err, &bad):
	case s.claim != nil:
		r.events.Warning(s.claim, kube.ReasonProvisioningFailed, err.Error())
	default:
		r.events.Warning(bad.Lease, kube.ReasonProvisioningFailed, err.Error())
	}
}

// reportPending reports that an attempt has failed and the operation stays recorded: on
// the claim, or on the operation's Lease if the claim is gone.
func (r *Reconciler) reportPending(s state, op *pending.Operation, failure error) {
	if s.claim != nil && s.claim.UID == op.ClaimUID() {
		r.reportFailure(s, failure)
		return
	}
	r.options.Metrics.recordFailure(s)
	r.events.Warning(op.Lease(), kube.ReasonProvisioningFailed, r.orphanMessage(op, failure))
}

// orphanMessage returns the message for an operation whose claim is gone. It tells the
// administrator what may exist at the driver, and under which name.
func (r *Reconciler) orphanMessage(op *pending.Operation, failure error) string {
	what := "it is not known whether driver " + r.options.Driver + " has created volume " + op.Request.GetName()
	if op.Handle != "" {
		what = "driver " + r.options.Driver + " has created volume " + op.Request.GetName() + " with the id " + op.Handle
	}
	advice := "the call is repeated until that is known, and the volume is deleted then"
	var secret *secretError
	if errors.As(failure, &secret) {
		advice = "create the secret again, or correct it"
	}
	return fmt.Sprintf("Claim %s is gone, and %s: %s; or make sure that the driver has no such volume and delete this Lease. %s", op.Claim(), what, advice, kube.Message(failure))
}

// otherNodeError returns the error for an operation that another provisioner has recorded.
func otherNodeError(op *pending.Operation) error {
	owner := "a provisioner for all nodes"
	if op.Node != "" {
		owner = "the provisioner of node " + op.Node
	}
	return fmt.Errorf("%s may have made the volume, as Lease %s records: waiting for it; if it is gone for good, delete that Lease", owner, op.Record)
}
