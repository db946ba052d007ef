package provision

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/provision/pending"
)

// maxSecretRetryInterval bounds the pause before a secret that was missing is looked for
// again. Secrets are not watched: they would all be in memory, and few roles
// may read all of them.
const maxSecretRetryInterval = 30 * time.Second

// secretMissingError says that the secret of a call does not exist.
type secretMissingError struct{ error }

func (n *secretMissingError) Unwrap() error { return n.error }

// readSecret reads the secret of an intent from the API server itself, unless
// that has been done.
func (r *Reconciler) readSecret(ctx context.Context, op *pending.Operation) error {
	if op.SecretValues != nil {
		return nil
	}
	values, err := kube.SecretData(ctx, r.apiReader, op.Secret)
	if apierrors.IsNotFound(err) {
		return &secretMissingError{err}
	}
	op.SecretValues = values
	return err
}

// retryAfter returns what a failure means for the next try: a pause for a secret
// that has been missing since some time, else the failure itself, for which the
// work queue has its pauses.
func (r *Reconciler) retryAfter(failure error, since time.Time) (time.Duration, error) {
	var missing *secretMissingError
	if errors.As(failure, &missing) {
		return r.options.secretRetryInterval(time.Since(since)), nil
	}
	return 0, failure
}

// secretRetryInterval is how long to wait for a secret that has been missing for some
// time: as long again, within bounds. So the pause grows and nothing is
// remembered.
func (o *Options) secretRetryInterval(missing time.Duration) time.Duration {
	return max(o.RetryStart, min(missing, maxSecretRetryInterval, o.RetryMax))
}

// reportPending tells that an intent could not be carried out and stays: on its claim,
// or on the intent's own Lease if nobody else is left to be told.
func (r *Reconciler) reportPending(s state, op *pending.Operation, failure error) {
	if s.claim != nil && s.claim.UID == op.ClaimUID() {
		r.reportFailure(s, failure)
		return
	}
	r.options.Metrics.recordFailure(s)
	r.events.Warning(op.Lease(), kube.ReasonProvisioningFailed, r.orphanMessage(op, failure))
}

// orphanMessage is what an administrator is told who finds an intent whose claim is
// gone: what may be left at the driver, and under which name.
func (r *Reconciler) orphanMessage(op *pending.Operation, failure error) string {
	what := "it is not known whether driver " + r.options.Driver + " has made volume " + op.Request.GetName()
	if op.Handle != "" {
		what = "driver " + r.options.Driver + " has made volume " + op.Request.GetName() + " with the id " + op.Handle
	}
	advice := "it is tried until that is known, and what was made is deleted then"
	var missing *secretMissingError
	if errors.As(failure, &missing) {
		advice = "make the secret again"
	}
	return fmt.Sprintf("Claim %s is gone, and %s: %s; or make sure that the driver has no such volume and delete this Lease. %v", op.Claim(), what, advice, failure)
}
