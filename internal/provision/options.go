package provision

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/migrate"
	"github.com/holdfast-io/holdfast/internal/provision/pernode"
)

// Options say how claims are served. They are the same for all claims.
type Options struct {
	// Driver is the CSI driver's own name: volumes carry it.
	Driver string
	// Provisioner is the name that classes carry; by default the driver's.
	Provisioner string
	// Plugin is what the driver has taken the place of, if it has.
	Plugin migrate.Plugin
	// Identity of this process, recorded in the attributes of what it makes.
	Identity string
	// Namespace is where intents are kept.
	Namespace string
	// Node is the only one that is served, if there is a provisioner on each.
	Node pernode.Node
	// Classes are the ones that may be served; empty means all.
	Classes []string
	// VolumeNamePrefix begins the name of every volume, before the claim's UID.
	VolumeNamePrefix string
	// NameLength is how much of the claim's UID the name has, without its dashes;
	// -1 is all of it, as it is.
	NameLength int
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
	// Topology is whether the driver's topology counts, if it has one.
	Topology bool
	// Attributes is whether claims' VolumeAttributesClasses count.
	Attributes bool
	// CrossNamespace is whether sources may be in other namespaces.
	CrossNamespace bool
	// ProtectionWorkers is how many sources are unprotected at a time.
	ProtectionWorkers int
	// Metrics count what is done; nil for nobody.
	Metrics *Metrics
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
	if o.NameLength != wholeUID && (o.NameLength < 1 || o.NameLength > uidLength) {
		errs = append(errs, fmt.Errorf("--volume-name-uuid-length %d: give 1 to %d, or %d for the whole UID", o.NameLength, uidLength, wholeUID))
	}
	if o.ProtectionWorkers < 1 {
		errs = append(errs, fmt.Errorf("--cloning-protection-threads %d: at least 1 is needed", o.ProtectionWorkers))
	}
	if o.Workers < 1 {
		errs = append(errs, fmt.Errorf("--worker-threads %d: at least 1 is needed", o.Workers))
	}
	if o.RetryStart <= 0 || o.RetryMax < o.RetryStart {
		errs = append(errs, fmt.Errorf("--retry-interval-start %s must be positive and not above --retry-interval-max %s", o.RetryStart, o.RetryMax))
	}
	return errors.Join(append(errs, o.Node.Validate())...)
}

// attributesClass is the VolumeAttributesClass that the claim names, "" for none.
func (o *Options) attributesClass(claim *corev1.PersistentVolumeClaim) string {
	if !o.Attributes {
		return ""
	}
	return ptr.Deref(claim.Spec.VolumeAttributesClassName, "")
}

// isOurClaim tells whether the claim is to be served by us.
func (o *Options) isOurClaim(claim *corev1.PersistentVolumeClaim) bool {
	by := kube.ClaimProvisioner(claim)
	return o.isOurProvisioner(by) || claim.Annotations[kube.AnnMigratedTo] == o.Driver
}

// isOurProvisioner tells whether a class of that provisioner is ours.
func (o *Options) isOurProvisioner(provisioner string) bool {
	return provisioner == o.Provisioner || o.Plugin.IsProvisioner(provisioner)
}

// isSelectedClass tells whether claims of a class may be served at all.
func (o *Options) isSelectedClass(class string) bool {
	return len(o.Classes) == 0 || slices.Contains(o.Classes, class)
}
