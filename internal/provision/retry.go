package provision

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// secretPause bounds the pause before a secret that was missing is looked for
// again. Secrets are not watched: they would all be in memory, and few roles
// may read all of them.
const secretPause = 30 * time.Second

// noSecret says that the secret of a call does not exist.
type noSecret struct{ error }

func (n *noSecret) Unwrap() error { return n.error }

// readSecret reads the secret of an intent from the API server itself, unless
// that has been done.
func (r *Reconciler) readSecret(ctx context.Context, i *intent) error {
	if i.values != nil {
		return nil
	}
	values, err := kube.SecretData(ctx, r.live, i.secret)
	if apierrors.IsNotFound(err) {
		return &noSecret{err}
	}
	i.values = values
	return err
}

// retry returns what a failure means for the next try: a pause for a secret
// that has been missing since some time, else the failure itself, for which the
// work queue has its pauses.
func (r *Reconciler) retry(failure error, since time.Time) (time.Duration, error) {
	var missing *noSecret
	if errors.As(failure, &missing) {
		return r.options.pauseFor(time.Since(since)), nil
	}
	return 0, failure
}

// pauseFor is how long to wait for a secret that has been missing for some
// time: as long again, within bounds. So the pause grows and nothing is
// remembered.
func (o *Options) pauseFor(missing time.Duration) time.Duration {
	return max(o.RetryStart, min(missing, secretPause, o.RetryMax))
}

// stuck tells that an intent could not be carried out and stays: on its claim,
// or on the intent's own Lease if nobody else is left to be told.
func (r *Reconciler) stuck(s seen, i *intent, failure error) {
	if s.claim != nil && s.claim.UID == i.claimUID() {
		r.fails(s, failure)
		return
	}
	r.options.Metrics.failure(s)
	r.events.Warning(i.lease(), kube.ReasonProvisioningFailed, r.orphaned(i, failure))
}

// orphaned is what an administrator is told who finds an intent whose claim is
// gone: what may be left at the driver, and under which name.
func (r *Reconciler) orphaned(i *intent, failure error) string {
	what := "it is not known whether driver " + r.options.Driver + " has made volume " + i.request.GetName()
	if i.handle != "" {
		what = "driver " + r.options.Driver + " has made volume " + i.request.GetName() + " with the id " + i.handle
	}
	advice := "it is tried until that is known, and what was made is deleted then"
	var missing *noSecret
	if errors.As(failure, &missing) {
		advice = "make the secret again"
	}
	return fmt.Sprintf("Claim %s is gone, and %s: %s; or make sure that the driver has no such volume and delete this Lease. %v", i.claim(), what, advice, failure)
}
