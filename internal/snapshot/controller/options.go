package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/pflag"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// Options say how snapshots are worked on. They are the same for all.
type Options struct {
	// Distributed has each content carry the node of its volume, for drivers that
	// stand on each node.
	Distributed bool
	// RecordMode has each content say whether it is of a filesystem or of a block
	// volume, so that a provisioner can refuse to restore the one as the other.
	RecordMode bool
	// Groups has group snapshots worked on too, where they are installed.
	Groups bool
	// Namespaces are those whose snapshots are worked on; none for all.
	Namespaces []string
	// Workers is how many snapshots are worked on at a time.
	Workers int
	// RetryStart and RetryMax bound the pause before the next try.
	RetryStart, RetryMax time.Duration
}

// AddFlags declares the flags.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	fs.BoolVar(&o.Distributed, "enable-distributed-snapshotting", false,
		"write the node of the volume on each content, for drivers with a csi-snapshotter on each node")
	fs.StringSliceVar(&o.Namespaces, "watch-namespace", nil,
		"work only on the snapshots of these namespaces, separated by commas; somebody else must do it in the others [WATCH_NAMESPACE]")
	fs.BoolVar(&o.RecordMode, "prevent-volume-mode-conversion", true,
		"write the volume's mode on each content, so that it is not restored to a volume of another mode without permission")
}

// AddFeatureGates declares the gate.
func (o *Options) AddFeatureGates(g interface {
	Add(name string, to *bool, usage string)
}) {

	g.Add("CSIVolumeGroupSnapshot", &o.Groups, "work on group snapshots")
}

// IsSelected tells whether snapshots of a namespace are worked on.
func (o *Options) IsSelected(namespace string) bool {
	return len(o.Namespaces) == 0 || slices.Contains(o.Namespaces, namespace)
}

// onlySelected leaves of what an object leads to only what is in such namespaces. The
// cache knows of no snapshots in others.
func (o *Options) onlySelected(lead handler.MapFunc) handler.MapFunc {
	return func(ctx context.Context, object client.Object) []reconcile.Request {
		return slices.DeleteFunc(lead(ctx, object), func(r reconcile.Request) bool { return !o.IsSelected(r.Namespace) })
	}
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
