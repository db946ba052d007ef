package resize

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"github.com/holdfast-io/holdfast/internal/migrate"
)

// Options configure the controller.
type Options struct {
	// Driver is the CSI driver's name in the spec of volumes.
	Driver string
	// Plugin is the in-tree plugin that the driver replaces, if there is one.
	Plugin migrate.Plugin
	// Workers is the number of claims that are reconciled at the same time.
	Workers int
	// RetryStart and RetryMax are the shortest and the longest delay before a
	// retry. An infeasible request is retried after RetryMax.
	RetryStart, RetryMax time.Duration
	// HandleInUseError waits until no pod uses a volume, if the driver could
	// not expand it because it was in use.
	HandleInUseError bool
	// ExtraModifyMetadata sends the names of the claim and the volume to the
	// driver.
	ExtraModifyMetadata bool
	// Recover records targets, so that users may lower a request that cannot be
	// met.
	Recover bool
	// AnnotateOldSize annotates the volume with its old size while the node
	// still has to expand the filesystem.
	AnnotateOldSize bool
	// Modify applies the VolumeAttributesClass of claims.
	Modify bool
	// ExpandTimeout and ModifyTimeout are the timeouts of one ControllerExpandVolume and
	// one ControllerModifyVolume. 0 is the driver's.
	ExpandTimeout, ModifyTimeout time.Duration
}

// AddFlags declares the flags that only this controller has.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	fs.BoolVar(&o.HandleInUseError, "handle-volume-inuse-error", true, "if the driver cannot expand a volume that is in use, wait until no pod uses it")
	fs.DurationVar(&o.ExpandTimeout, "resize-timeout", 0, "timeout of one ControllerExpandVolume call, unless --timeout is set; 0 for the default of --timeout")
	fs.DurationVar(&o.ModifyTimeout, "modify-timeout", 0, "timeout of one ControllerModifyVolume call, unless --timeout is set; 0 for the default of --timeout")
	fs.BoolVar(&o.ExtraModifyMetadata, "extra-modify-metadata", false, "send the names of claim, namespace and volume to the driver as parameters of a modification")
}

// AddFeatureGates declares the feature gates of this controller.
func (o *Options) AddFeatureGates(g interface {
	Add(name string, to *bool, usage string)
},
) {
	g.Add("RecoverVolumeExpansionFailure", &o.Recover, "let users lower a request that could not be met (cannot be disabled)")
	g.Add("AnnotateFsResize", &o.AnnotateOldSize, "annotate a volume with its old size while its node has to expand the filesystem")
	g.Add("VolumeAttributesClass", &o.Modify, "apply the VolumeAttributesClass of claims")
}

// Validate returns all errors at once.
func (o *Options) Validate() error {
	var errs []error
	if o.Workers < 1 {
		errs = append(errs, fmt.Errorf("--workers %d must be at least 1", o.Workers))
	}
	if o.RetryStart <= 0 || o.RetryMax < o.RetryStart {
		errs = append(errs, fmt.Errorf("--retry-interval-start %s must be positive and not above --retry-interval-max %s", o.RetryStart, o.RetryMax))
	}
	if o.ExpandTimeout < 0 || o.ModifyTimeout < 0 {
		errs = append(errs, fmt.Errorf("--resize-timeout %s and --modify-timeout %s must not be negative", o.ExpandTimeout, o.ModifyTimeout))
	}
	if !o.Recover {
		errs = append(errs, errors.New("--feature-gates RecoverVolumeExpansionFailure=false: "+
			"it cannot be disabled, because the kubelet expands a filesystem only if the target is recorded in the claim"))
	}
	return errors.Join(errs...)
}
