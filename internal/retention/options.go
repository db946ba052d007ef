package retention

import (
	"time"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// Options configure the controller.
type Options struct {
	// Namespaces are those whose Checkpoints are deleted; none for all. The cache has to be
	// limited to them, too.
	Namespaces []string
	// Workers is how many policies are reconciled concurrently.
	Workers int
	// RetryStart and RetryMax are the shortest and the longest pause before a retry.
	RetryStart, RetryMax time.Duration
	// Clock reads the API server's time. Nothing is too old before it is by both clocks, this
	// one and the machine's. It may be nil.
	Clock *kube.Clock
}
