package attach

import (
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-io/holdfast/internal/migrate"
)

// Options say how VolumeAttachments are worked on. They are the same for all.
type Options struct {
	// Driver is the CSI driver's own name: VolumeAttachments carry it.
	Driver string
	// Plugin is what the driver has taken the place of, if it has.
	Plugin migrate.Plugin
	// DefaultFSType is told to the driver for volumes that name none; it may be
	// empty.
	DefaultFSType string
	// Timeout is how long an attachment may take before it is marked as failed.
	// Work on it goes on.
	Timeout time.Duration
	// DriftCheckInterval is how often the driver's own list of publications is
	// compared with the VolumeAttachments; 0 is never.
	DriftCheckInterval time.Duration
	// PageSize is how many volumes the driver is asked for at a time in that; 0
	// leaves it to the driver.
	PageSize int32
	// DetachDangling takes volumes away from nodes that no VolumeAttachment tells
	// of. They are only reported otherwise.
	DetachDangling bool
	// ErrorCodes puts the driver's codes into the status (KEP-4876).
	ErrorCodes bool
	// Workers is how many VolumeAttachments are attached at a time, and how many
	// detached.
	Workers int
	// RetryStart and RetryMax bound the pause before the next try.
	RetryStart, RetryMax time.Duration
}

// Validate tells all that is wrong at once.
func (o *Options) Validate() error {
	var errs []error
	if o.Workers < 1 {
		errs = append(errs, fmt.Errorf("--worker-threads %d: at least 1 is needed", o.Workers))
	}
	if o.RetryStart <= 0 || o.RetryMax < o.RetryStart {
		errs = append(errs, fmt.Errorf("--retry-interval-start %s must be positive and not above --retry-interval-max %s", o.RetryStart, o.RetryMax))
	}
	if o.Timeout <= 0 {
		errs = append(errs, fmt.Errorf("--volume-attachment-timeout %s must be positive", o.Timeout))
	}
	if o.PageSize < 0 {
		errs = append(errs, fmt.Errorf("--max-entries %d must not be negative", o.PageSize))
	}
	return errors.Join(errs...)
}
