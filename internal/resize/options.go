package resize

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"github.com/holdfast-io/holdfast/internal/migrate"
)

// Options say how claims are served. They are the same for all claims.
type Options struct {
	// Driver is the CSI driver's own name: volumes carry it.
	Driver string
	// Plugin is what the driver has taken the place of, if it has.
	Plugin migrate.Plugin
	// Workers is how many claims are worked on at a time.
	Workers int
	// RetryStart and RetryMax bound the pause before the next try. What is
	// infeasible is tried again after RetryMax.
	RetryStart, RetryMax time.Duration
	// HandleInUseError looks, before a volume is expanded that could not be because it
	// was in use, whether a pod still uses it.
	HandleInUseError bool
	// ExtraModifyMetadata tells the driver the names of claim and volume.
	ExtraModifyMetadata bool
	// Recover puts targets on record so that a request that cannot be met may be
	// lowered.
	Recover bool
	// AnnotateOldSize notes the size before an expansion at the volume while the node
	// has its half of the expansion to do.
	AnnotateOldSize bool
	// Modify follows the VolumeAttributesClass of claims.
	Modify bool
}

// AddFlags declares the options that are only about this controller.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	fs.BoolVar(&o.HandleInUseError, "handle-volume-inuse-error", true, "when the driver cannot expand a volume that is in use, wait until no pod uses it")
	fs.BoolVar(&o.ExtraModifyMetadata, "extra-modify-metadata", false, "tell the driver the names of claim, namespace and volume with a modification, as parameters")
}

// AddFeatureGates declares what this controller does unless it is told not to.
func (o *Options) AddFeatureGates(g interface {
	Add(name string, to *bool, usage string)
},
) {
	g.Add("RecoverVolumeExpansionFailure", &o.Recover, "let the request of a claim that could not be met be lowered (cannot be switched off)")
	g.Add("AnnotateFsResize", &o.AnnotateOldSize, "note the old size at a volume while its node has to expand it")
	g.Add("VolumeAttributesClass", &o.Modify, "follow the VolumeAttributesClass of a claim")
}

// Validate tells all that is wrong at once.
func (o *Options) Validate() error {
	var errs []error
	if o.Workers < 1 {
		errs = append(errs, fmt.Errorf("--workers %d: at least 1 is needed", o.Workers))
	}
	if o.RetryStart <= 0 || o.RetryMax < o.RetryStart {
		errs = append(errs, fmt.Errorf("--retry-interval-start %s must be positive and not above --retry-interval-max %s", o.RetryStart, o.RetryMax))
	}
	if !o.Recover {
		errs = append(errs, errors.New("--feature-gates RecoverVolumeExpansionFailure=false: "+
			"it cannot be switched off, because a kubelet expands a filesystem only if what it is about is on record"))
	}
	return errors.Join(errs...)
}
