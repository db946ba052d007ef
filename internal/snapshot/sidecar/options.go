package sidecar

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// Options configure the controllers for one kind of contents.
type Options struct {
	// Kind is the kind of contents.
	Kind ContentKind
	// Driver is the name of the CSI driver.
	Driver string
	// ExtraCreateMetadata passes the names of the snapshot and its content to the driver.
	ExtraCreateMetadata bool
	// Node limits the controllers to the contents of one node, if csi-snapshotter runs on
	// each node. Empty means all contents.
	Node string
	// Workers is the number of workers of each of the two queues.
	Workers int
	// RetryStart and RetryMax bound the exponential backoff.
	RetryStart, RetryMax time.Duration
}

// AddFlags declares the flags.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	fs.BoolVar(&o.ExtraCreateMetadata, "extra-create-metadata", false, "pass the names of the snapshot and of its content to the driver as parameters")
}

// isOurs reports whether a content is of our driver and node.
func (o *Options) isOurs(c *Content) bool {
	return c.Driver == o.Driver && (o.Node == "" || c.Object.GetLabels()[snapshot.ManagedBy] == snapshot.NodeLabel(o.Node))
}

// Validate returns all errors joined.
func (o *Options) Validate() error {
	var errs []error
	if o.Workers < 1 {
		errs = append(errs, fmt.Errorf("--worker-threads %d: at least 1 is needed", o.Workers))
	}
	if o.RetryStart <= 0 || o.RetryMax < o.RetryStart {
		errs = append(errs, fmt.Errorf("--retry-interval-start %s must be positive and not above --retry-interval-max %s", o.RetryStart, o.RetryMax))
	}
	return errors.Join(errs...)
}
