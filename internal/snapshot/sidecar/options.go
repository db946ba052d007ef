package sidecar

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// Options say how contents of one kind are worked on.
type Options struct {
	// Kind is what kind of contents is worked on.
	Kind ContentKind
	// Driver is the CSI driver's own name: contents carry it.
	Driver string
	// ExtraCreateMetadata tells the driver the names of the objects that a snapshot is of.
	ExtraCreateMetadata bool
	// Node is the node whose contents alone are worked on, of drivers that stand
	// on each node; empty for all contents.
	Node string
	// Workers is how many contents are worked on at a time, and how many deleted.
	Workers int
	// RetryStart and RetryMax bound the pause before the next try.
	RetryStart, RetryMax time.Duration
}

// AddFlags declares the flags.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	fs.BoolVar(&o.ExtraCreateMetadata, "extra-create-metadata", false, "tell the driver, by parameters, the names of the snapshot and of its content")
}

// isOurs tells whether a content is worked on.
func (o *Options) isOurs(c *Content) bool {
	return c.Driver == o.Driver && (o.Node == "" || c.Object.GetLabels()[snapshot.ManagedBy] == snapshot.NodeLabel(o.Node))
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
	return errors.Join(errs...)
}
