package attach

import (
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-io/holdfast/internal/migrate"
)

// Options configure the controller.
type Options struct {
	// Driver is the CSI driver's name, which is also the attacher's name in
	// VolumeAttachments.
	Driver string
	// Plugin is the in-tree plugin that the driver replaces, if there is one.
	Plugin migrate.Plugin
	// DefaultFSType is the filesystem type for volumes that name none. It may
	// be empty.
	DefaultFSType string
	// Timeout is how long attaching may take until the status says that it has
	// timed out. The attacher keeps trying.
	Timeout time.Duration
	// DriftCheckInterval is how often the driver's list of published volumes is
	// compared with the VolumeAttachments; 0 disables the check.
	DriftCheckInterval time.Duration
	// PageSize is the maximum number of volumes per page of that list; 0 leaves
	// it to the driver.
	PageSize int32
	// DetachDangling detaches volumes that are attached to a node without a
	// VolumeAttachment. Without it they are only reported.
	DetachDangling bool
	// ErrorCodes puts the driver's error codes into the status (KEP-4876).
	ErrorCodes bool
	// Workers is the number of workers for attaching, and again for detaching.
	Workers int
	// RetryStart and RetryMax are the shortest and the longest delay before a
	// retry.
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
	if o.Timeout <= 0 {
		errs = append(errs, fmt.Errorf("--volume-attachment-timeout %s must be positive", o.Timeout))
	}
	if o.PageSize < 0 {
		errs = append(errs, fmt.Errorf("--max-entries %d must not be negative", o.PageSize))
	}
	return errors.Join(errs...)
}
