package pernode

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/provision/placement"
	"github.com/holdfast-io/holdfast/internal/topology"
)

// A Node has the options of a provisioner that serves one node. The zero value is for a
// provisioner that serves all nodes.
type Node struct {
	// Deployed is whether a provisioner is deployed on every node.
	Deployed bool
	// Name is the node's name, and Segment is where its driver creates volumes.
	Name    string
	Segment topology.Segment
	// ImmediateBinding is whether claims are served whose class binds immediately, so
	// that the scheduler selects no node for them.
	ImmediateBinding bool
	// BaseDelay and MaxDelay bound the random delay before the node tries to get such a
	// claim: for the first try, and after many tries.
	BaseDelay, MaxDelay time.Duration
}

// AddFlags adds the flags of these options.
func (n *Node) AddFlags(fs *pflag.FlagSet) {
	fs.BoolVar(&n.Deployed, "node-deployment", false, "serve only the node of this process: a provisioner is deployed beside the driver on every node [NODE_NAME]")
	fs.BoolVar(&n.ImmediateBinding, "node-deployment-immediate-binding", true, "with --node-deployment: serve classes that bind immediately too; the nodes compete for each claim")
	fs.DurationVar(&n.BaseDelay, "node-deployment-base-delay", 20*time.Second, "with --node-deployment: maximum of the random delay before a node first tries to get a claim that binds immediately; it doubles with each try")
	fs.DurationVar(&n.MaxDelay, "node-deployment-max-delay", time.Minute, "with --node-deployment: upper bound of that delay")
}

// Validate returns all errors in the options.
func (n *Node) Validate() error {
	if !n.Deployed {
		return nil
	}
	var errs []error
	if n.Name == "" {
		errs = append(errs, errors.New("--node-deployment: set NODE_NAME to the pod's spec.nodeName"))
	}
	if len(n.Segment) == 0 {
		errs = append(errs, errors.New("--node-deployment: the driver announces no topology of this node, so volumes would have no node affinity; deploy one provisioner for all nodes"))
	}
	if n.BaseDelay <= 0 || n.MaxDelay < n.BaseDelay {
		errs = append(errs, fmt.Errorf("--node-deployment-base-delay %s must be positive and not above --node-deployment-max-delay %s", n.BaseDelay, n.MaxDelay))
	}
	return errors.Join(errs...)
}

// IsElsewhere reports whether a claim's selected node has a provisioner of its own.
func (n *Node) IsElsewhere(selected string) bool {
	return n.Deployed && selected != "" && selected != n.Name
}

// IsSelectedFor reports whether a claim waits for a volume on this node, and is the one
// with that UID.
func (n *Node) IsSelectedFor(claim *corev1.PersistentVolumeClaim, uid types.UID) bool {
	return claim.UID == uid && claim.Spec.VolumeName == "" && kube.SelectedNode(claim) == n.Name
}

// IsUnassigned reports whether no node is selected for a claim, so that all nodes may
// compete for it.
func (n *Node) IsUnassigned(claim *corev1.PersistentVolumeClaim) bool {
	return n.Deployed && kube.SelectedNode(claim) == ""
}

// IsAllowedBy reports whether the class allows volumes on this node.
func (n *Node) IsAllowedBy(class *storagev1.StorageClass) bool {
	return len(class.AllowedTopologies) == 0 || slices.ContainsFunc(placement.ExpandTerms(class.AllowedTopologies),
		func(s topology.Segment) bool { return s.Contains(n.Segment) })
}

// Topology returns the driver's topology on this node, as the driver announces it.
func (n *Node) Topology() placement.NodeTopology {
	return placement.NodeTopology{Name: n.Name, Labels: n.Segment, Keys: slices.Sorted(maps.Keys(n.Segment))}
}

// Affinity returns a new volume's node affinity. A driver need not say where a volume is
// accessible; a volume that this node's driver has created is on this node.
func (n *Node) Affinity(fromDriver *corev1.VolumeNodeAffinity) *corev1.VolumeNodeAffinity {
	if !n.Deployed || fromDriver != nil {
		return fromDriver
	}
	return topology.NodeAffinity([]*csipb.Topology{{Segments: n.Segment}})
}
