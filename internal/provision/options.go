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

// Options are those of the controller that creates volumes.
type Options struct {
	// Driver is the CSI driver's name.
	Driver string
	// Provisioner is the provisioner of the classes to serve; the driver's name by default.
	Provisioner string
	// Plugin is what the driver has taken the place of, if it has.
	Plugin migrate.Plugin
	// Identity of this process. Volumes have it in their attributes.
	Identity string
	// Namespace is that of the Leases that record pending operations.
	Namespace string
	// Node is the only node that is served, if a provisioner is deployed on each node.
	Node pernode.Node
	// Classes are the only classes to serve; empty means all.
	Classes []string
	// VolumeNamePrefix is what the names of volumes start with, before the claim's UID.
	VolumeNamePrefix string
	// NameLength is how many characters of the claim's UID, without dashes, the name has;
	// -1 is the whole UID with dashes.
	NameLength int
	// DefaultFSType is the filesystem if the class has none; it may be empty.
	DefaultFSType string
	// ExtraCreateMetadata passes the names of claim and volume to the driver.
	ExtraCreateMetadata bool
	// StrictTopology requires a volume on the selected node's segment.
	StrictTopology bool
	// ImmediateTopology passes all segments for classes that bind immediately.
	ImmediateTopology bool
	// ReadOnlyPublish marks volumes of ReadOnlyMany claims as read-only.
	ReadOnlyPublish bool
	// PreventModeConversion rejects to restore a snapshot to a volume of another mode,
	// unless an administrator has allowed it on the snapshot's content.
	PreventModeConversion bool
	// SweepInterval is how often all snapshots are checked for leftover finalizers; 0 is
	// never.
	SweepInterval time.Duration
	// Topology is whether the driver's topology is used, if it has one.
	Topology bool
	// Attributes is whether the VolumeAttributesClass of a claim is used.
	Attributes bool
	// CrossNamespace is whether sources may be in other namespaces.
	CrossNamespace bool
	// ProtectionWorkers is how many sources are unprotected at a time.
	ProtectionWorkers int
	// Metrics count attempts; nil for none.
	Metrics *Metrics
	// Workers is how many claims are reconciled at a time.
	Workers int
	// RetryStart and RetryMax bound the backoff of a failed claim.
	RetryStart, RetryMax time.Duration
}

// Validate returns all errors in the options.
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

// attributesClass returns the VolumeAttributesClass of the claim, "" for none.
func (o *Options) attributesClass(claim *corev1.PersistentVolumeClaim) string {
	if !o.Attributes {
		return ""
	}
	return ptr.Deref(claim.Spec.VolumeAttributesClassName, "")
}

// isOurClaim reports whether the PV controller has asked us to provision the claim.
func (o *Options) isOurClaim(claim *corev1.PersistentVolumeClaim) bool {
	by := kube.ClaimProvisioner(claim)
	return o.isOurProvisioner(by) || claim.Annotations[kube.AnnMigratedTo] == o.Driver
}

// isOurProvisioner reports whether classes of a provisioner are ours.
func (o *Options) isOurProvisioner(provisioner string) bool {
	return provisioner == o.Provisioner || o.Plugin.IsProvisioner(provisioner)
}

// isSelectedClass reports whether --storageclass-whitelist permits a class.
func (o *Options) isSelectedClass(class string) bool {
	return len(o.Classes) == 0 || slices.Contains(o.Classes, class)
}
