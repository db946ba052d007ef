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

// Options are those of the controllers of both kinds of snapshots.
type Options struct {
	// Distributed labels each content with the node of its volume, for drivers with a
	// csi-snapshotter on each node.
	Distributed bool
	// RecordMode writes to each content whether its volume is a filesystem or a block
	// device, so that a provisioner can reject a restore to the other mode (KEP-3141).
	RecordMode bool
	// Groups enables group snapshots, where their CRDs are installed.
	Groups bool
	// Namespaces are those whose snapshots are selected; none for all.
	Namespaces []string
	// Workers is how many objects each controller reconciles at a time.
	Workers int
	// RetryStart and RetryMax bound the backoff.
	RetryStart, RetryMax time.Duration
}

// AddFlags declares the flags.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	fs.BoolVar(&o.Distributed, "enable-distributed-snapshotting", false,
		"label each content with the node of its volume, for drivers with a csi-snapshotter on each node")
	fs.StringSliceVar(&o.Namespaces, "watch-namespace", nil,
		"work only on the snapshots of these namespaces, separated by commas; other namespaces need another controller [WATCH_NAMESPACE]")
	fs.BoolVar(&o.RecordMode, "prevent-volume-mode-conversion", true,
		"write the volume's mode on each content, so that it is not restored to a volume of another mode without permission")
}

// AddFeatureGates declares the feature gate.
func (o *Options) AddFeatureGates(g interface {
	Add(name string, to *bool, usage string)
}) {

	g.Add("CSIVolumeGroupSnapshot", &o.Groups, "work on group snapshots")
}

// IsSelected reports whether the flags select a namespace.
func (o *Options) IsSelected(namespace string) bool {
	return len(o.Namespaces) == 0 || slices.Contains(o.Namespaces, namespace)
}

// onlySelected drops requests for other namespaces. The cache has no snapshots of those.
func (o *Options) onlySelected(lead handler.MapFunc) handler.MapFunc {
	return func(ctx context.Context, object client.Object) []reconcile.Request {
		return slices.DeleteFunc(lead(ctx, object), func(r reconcile.Request) bool { return !o.IsSelected(r.Namespace) })
	}
}

// Validate reports all invalid options at once.
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
