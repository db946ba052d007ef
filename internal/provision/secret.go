package provision

import (
	"context"
	"errors"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/provision/pending"
)

// maxSecretRetryInterval bounds how long to wait before a missing secret is read again.
// Secrets are not watched: all of them would be in memory, and few roles may read all of
// them.
const maxSecretRetryInterval = 30 * time.Second

// secretMissingError is about a secret of a call that does not exist.
type secretMissingError struct{ error }

func (e *secretMissingError) Unwrap() error { return e.error }

// readSecret reads the secret of an operation from the API server, unless it was read
// before.
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

// retryAfter returns how to retry after a failure: at a time, if a secret has been missing
// since then, else with the work queue's backoff.
func (r *Reconciler) retryAfter(failure error, since time.Time) (time.Duration, error) {
	var missing *secretMissingError
	if errors.As(failure, &missing) {
		return r.options.secretRetryInterval(time.Since(since)), nil
	}
	return 0, failure
}

// secretRetryInterval returns how long to wait for a secret that has been missing for some
// time: as long again, within bounds. So the interval grows without state in memory.
func (o *Options) secretRetryInterval(missing time.Duration) time.Duration {
	return max(o.RetryStart, min(missing, maxSecretRetryInterval, o.RetryMax))
}
