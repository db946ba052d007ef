package provision

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"
)

// Options say how claims are served. They are the same for all claims.
type Options struct {
	// Driver is the CSI driver's own name: volumes carry it.
	Driver string
	// Provisioner is the name that classes carry; by default the driver's.
	Provisioner string
	// Identity of this process, recorded in the attributes of what it makes.
	Identity string
	// Namespace is where intents are kept.
	Namespace string
	// Node is the only one that is served, if there is a provisioner on each.
	Node Node
	// Classes are the ones that may be served; empty means all.
	Classes []string
	// VolumeNamePrefix begins the name of every volume, before the claim's UID.
	VolumeNamePrefix string
	// DefaultFSType is used when the class gives no filesystem; it may be empty.
	DefaultFSType string
	// ExtraCreateMetadata tells the driver the names of claim and volume.
	ExtraCreateMetadata bool
	// StrictTopology asks for a volume on the selected node's segment only.
	StrictTopology bool
	// ImmediateTopology names all segments for classes that bind immediately.
	ImmediateTopology bool
	// ReadOnlyPublish marks volumes of ReadOnlyMany claims as read-only.
	ReadOnlyPublish bool
	// PreventModeConversion refuses to restore a snapshot to a volume of another
	// mode, unless an administrator has allowed it at the snapshot's content.
	PreventModeConversion bool
	// SweepInterval is how often snapshots are looked for that are still
	// protected though nothing is being restored from them; 0 is never.
	SweepInterval time.Duration
	// Workers is how many claims are worked on at a time.
	Workers int
	// RetryStart and RetryMax bound the pause before a failed claim's next try.
	RetryStart, RetryMax time.Duration
}

// Validate tells all that is wrong at once.
func (o *Options) Validate() error {
	var errs []error
	for _, problem := range validation.IsQualifiedName(strings.ToLower(o.Provisioner)) {
		errs = append(errs, fmt.Errorf("--provisioner %q: %s", o.Provisioner, problem))
	}
	for _, problem := range validation.IsDNS1123Subdomain(o.VolumeNamePrefix) {
		errs = append(errs, fmt.Errorf("--volume-name-prefix %q: %s", o.VolumeNamePrefix, problem))
	}
	if o.Workers < 1 {
		errs = append(errs, fmt.Errorf("--worker-threads %d: at least 1 is needed", o.Workers))
	}
	if o.RetryStart <= 0 || o.RetryMax < o.RetryStart {
		errs = append(errs, fmt.Errorf("--retry-interval-start %s must be positive and not above --retry-interval-max %s", o.RetryStart, o.RetryMax))
	}
	return errors.Join(append(errs, o.Node.Validate())...)
}

// serves tells whether claims of a class may be served at all.
func (o *Options) serves(class string) bool {
	return len(o.Classes) == 0 || slices.Contains(o.Classes, class)
}
