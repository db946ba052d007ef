package provision

import (
	"context"
	"errors"
	"time"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/provision/pending"
)

// maxSecretRetryInterval bounds how long to wait before a missing or invalid secret is read again.
// Secrets are not watched: all of them would be in memory, and few roles may read all of
// them.
const maxSecretRetryInterval = 30 * time.Second

// secretError is about a secret of a call that does not exist or cannot be sent, until somebody
// changes that.
type secretError struct{ error }

func (e *secretError) Unwrap() error { return e.error }

// readSecret reads the secret of an operation from the API server, unless it was read
// before.
func (r *Reconciler) readSecret(ctx context.Context, op *pending.Operation) error {
	if op.SecretValues != nil {
		return nil
	}
	values, err := kube.SecretData(ctx, r.apiReader, op.Secret)
	if kube.IsSecretProblem(err) {
		return &secretError{err}
	}
	op.SecretValues = values
	return err
}

// retryAfter returns how to retry after a failure: at a time, if a secret has been missing or
// invalid since then, else with the work queue's backoff.
func (r *Reconciler) retryAfter(failure error, since time.Time) (time.Duration, error) {
	var secret *secretError
	if errors.As(failure, &secret) {
		return r.options.secretRetryInterval(time.Since(since)), nil
	}
	return 0, failure
}

// secretRetryInterval returns how long to wait for a secret that has been missing for some
// time: as long again, within bounds. So the interval grows without state in memory.
func (o *Options) secretRetryInterval(missing time.Duration) time.Duration {
	return max(o.RetryStart, min(missing, maxSecretRetryInterval, o.RetryMax))
}
