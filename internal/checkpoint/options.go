package checkpoint

import (
	"errors"
	"fmt"
	"time"
)

// Options configure the controller.
type Options struct {
	// Namespace is the operator's own. A Checkpoint there may name pods of all namespaces,
	// and the Secrets that policies name are there.
	Namespace string
	// Workers is how many Checkpoints are reconciled concurrently.
	Workers int
	// RetryStart and RetryMax are the shortest and the longest pause before a retry, and
	// between two looks for something that a Checkpoint waits for and that is not watched,
	// such as its pod.
	RetryStart, RetryMax time.Duration
}

// Validate returns all errors at once.
func (o *Options) Validate() error {
	var errs []error
	if o.Workers < 1 {
		errs = append(errs, fmt.Errorf("--worker-threads %d must be at least 1", o.Workers))
	}
	if o.RetryStart <= 0 || o.RetryMax < o.RetryStart {
		errs = append(errs, fmt.Errorf("--retry-interval-start %s must be positive and not above --retry-interval-max %s", o.RetryStart, o.RetryMax))
	}
	return errors.Join(errs...)
}
