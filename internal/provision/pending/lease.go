package pending

import (
	"context"
	"fmt"
	"strings"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/provision/source"
)

const (
	// DriverLabel marks the Leases of this package. Its value is the driver's name, so that
	// drivers can share a namespace. In Leases of earlier versions it is [csi.SafeName] of
	// that, which two drivers can have in common.
	DriverLabel = "provision.holdfast.io/driver"
	// NodeLabel marks the operations of one node's own provisioner, so that only that
	// one caches them. The annotation of the same key has the node's whole name.
	NodeLabel      = "provision.holdfast.io/node"
	nodeAnnotation = NodeLabel
	// sourceLabel selects the operations that read a source, on any node.
	sourceLabel = "provision.holdfast.io/source-hash"

	// operationAnnotation holds the operation.
	operationAnnotation = "provision.holdfast.io/intent"
	// claimAnnotation is NAMESPACE/NAME of the claim, and sourceAnnotation is
	// KIND/NAMESPACE/NAME of the source. Indexes and event handlers read them from
	// every Lease several times, without decoding the operation.
	claimAnnotation  = "provision.holdfast.io/claim"
	sourceAnnotation = "provision.holdfast.io/source"
	// volumeAnnotation is the name of the volume.
	volumeAnnotation = "provision.holdfast.io/volume"
	// handleAnnotation is the handle of a volume that the driver has created and whose
	// PersistentVolume could not be created yet.
	handleAnnotation = "provision.holdfast.io/volume-handle"
	// failingSinceAnnotation is since when all responses of the driver have been errors
	// that do not leave the outcome of that call open.
	failingSinceAnnotation = "provision.holdfast.io/refused-since"
)

// LeaseName returns the name of the Lease that records a claim's operation.
func LeaseName(claim types.UID) string { return "provision-" + string(claim) }

// ClaimOf returns the claim of the operation that a Lease records.
func ClaimOf(lease client.Object) (claim types.NamespacedName, ok bool) {
	namespace, name, ok := strings.Cut(lease.GetAnnotations()[claimAnnotation], "/")
	return types.NamespacedName{Namespace: namespace, Name: name}, ok
}

// SourceOf returns the source of the operation that a Lease records, if it has one.
func SourceOf(lease client.Object) (from source.Source, ok bool) {
	return source.ParseKey(lease.GetAnnotations()[sourceAnnotation])
}

// Readers selects the Leases of the operations that read a source, on all nodes.
func Readers(driver string, from source.Source) client.MatchingLabelsSelector {
	of := labels.SelectorFromSet(labels.Set{sourceLabel: from.Hash()})
	return client.MatchingLabelsSelector{Selector: of.Add(ofDriver(driver))}
}

// ofDriver selects the operations of a driver, in Leases of earlier versions too, and
// perhaps some of another driver.
func ofDriver(driver string) labels.Requirement {
	return requirement(DriverLabel, selection.In, driver, csi.SafeName(driver))
}

// requirement returns a requirement. The keys are constants, and all values are valid: the
// name of a driver is one, as checked when the driver is connected.
func requirement(key string, operator selection.Operator, values ...string) labels.Requirement {
	r, err := labels.NewRequirement(key, operator, values)
	if err != nil {
		panic(err)
	}
	return *r
}

// OwnSelector selects the operations that a process resumes: those of its node, or
// those of no node. The driver of another node would create a second volume.
func OwnSelector(driver, node string) labels.Selector {
	own := labels.NewSelector().Add(ofDriver(driver))
	if node == "" {
		return own.Add(requirement(NodeLabel, selection.DoesNotExist))
	}
	return own.Add(requirement(NodeLabel, selection.Equals, nodeLabelValue(node)))
}

// leaseLabels returns the labels of an operation's Lease.
func (s *Store) leaseLabels(op *Operation) map[string]string {
	all := map[string]string{DriverLabel: s.Driver}
	if s.Node != "" {
		all[NodeLabel] = nodeLabelValue(s.Node)
	}
	if op.Source != nil {
		all[sourceLabel] = op.Source.Hash()
	}
	return all
}

func nodeLabelValue(node string) string { return kube.NodeLabelValue("node", node) }

// Indexes of the cached Leases.
const (
	byClaim  = "provision.claim"
	byVolume = "provision.volume"
)

// IndexLeases adds the indexes that a [Store] reads to a manager's cache.
func IndexLeases(ctx context.Context, m ctrl.Manager) error {
	for field, annotation := range map[string]string{byClaim: claimAnnotation, byVolume: volumeAnnotation} {
		values := func(o client.Object) []string {
			if value := o.GetAnnotations()[annotation]; value != "" {
				return []string{value}
			}
			return nil
		}
		if err := m.GetFieldIndexer().IndexField(ctx, &coordinationv1.Lease{}, field, values); err != nil {
			return fmt.Errorf("indexing Leases by %s: %w", field, err)
		}
	}
	return nil
}
