package provision

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
	"github.com/holdfast-io/holdfast/internal/topology"
)

// A Node is the one that a provisioner serves of which there is one beside the
// driver on every node. The zero value is for a provisioner that serves all.
type Node struct {
	// Deployed is whether there is one on every node.
	Deployed bool
	// Name is the node's, and Segment where its driver makes volumes.
	Name    string
	Segment topology.Segment
	// ImmediateBinding is whether claims are served for which no scheduler
	// selects a node.
	ImmediateBinding bool
	// BaseDelay and MaxDelay bound the random pause before the node takes such a
	// claim for itself: the longest first one, and the longest after many tries.
	BaseDelay, MaxDelay time.Duration
}

// AddFlags declares the options that are only about nodes.
func (n *Node) AddFlags(fs *pflag.FlagSet) {
	fs.BoolVar(&n.Deployed, "node-deployment", false, "serve only the node that this process runs on: there is a provisioner beside the driver on every node [NODE_NAME]")
	fs.BoolVar(&n.ImmediateBinding, "node-deployment-immediate-binding", true, "with --node-deployment: serve classes that bind immediately too; the nodes settle who makes the volume")
	fs.DurationVar(&n.BaseDelay, "node-deployment-base-delay", 20*time.Second, "with --node-deployment: a node waits up to this long before it first takes a claim that binds immediately; it doubles with each try")
	fs.DurationVar(&n.MaxDelay, "node-deployment-max-delay", time.Minute, "with --node-deployment: what that time does not exceed")
}

// Validate tells all that is wrong at once.
func (n *Node) Validate() error {
	if !n.Deployed {
		return nil
	}
	var errs []error
	if n.Name == "" {
		errs = append(errs, errors.New("--node-deployment: set NODE_NAME to the pod's spec.nodeName"))
	}
	if len(n.Segment) == 0 {
		errs = append(errs, errors.New("--node-deployment: the driver announces no topology of this node, so nobody could tell later which node has a volume; deploy one provisioner for all nodes"))
	}
	if n.BaseDelay <= 0 || n.MaxDelay < n.BaseDelay {
		errs = append(errs, fmt.Errorf("--node-deployment-base-delay %s must be positive and not above --node-deployment-max-delay %s", n.BaseDelay, n.MaxDelay))
	}
	return errors.Join(errs...)
}

// IsElsewhere tells whether a claim's selected node has a provisioner of its own.
func (n *Node) IsElsewhere(selected string) bool {
	return n.Deployed && selected != "" && selected != n.Name
}

// IsSelectedFor tells whether the node is to serve a claim, and it is still the one that
// was seen.
func (n *Node) IsSelectedFor(claim *corev1.PersistentVolumeClaim, seen types.UID) bool {
	return claim.UID == seen && claim.Spec.VolumeName == "" && kube.SelectedNode(claim) == n.Name
}

// IsUnassigned tells whether a claim's volume may be on any node that takes it.
func (n *Node) IsUnassigned(claim *corev1.PersistentVolumeClaim) bool {
	return n.Deployed && kube.SelectedNode(claim) == ""
}

// decideClaiming is about a claim that any node may take, because its class binds
// immediately and no scheduler selects one.
func (n *Node) decideClaiming(s state, o *Options) decision {
	if !n.ImmediateBinding || !n.IsAllowedBy(s.class) {
		return decision{action: none}
	}
	next := decideSpec(s, o)
	if next.action == start {
		next.action = claimForNode
	}
	return next
}

// IsAllowedBy tells whether the class lets volumes be on the node.
func (n *Node) IsAllowedBy(class *storagev1.StorageClass) bool {
	return len(class.AllowedTopologies) == 0 || slices.ContainsFunc(ExpandTerms(class.AllowedTopologies),
		func(s topology.Segment) bool { return s.Contains(n.Segment) })
}

// Topology is the node as what it says about itself.
func (n *Node) Topology() NodeTopology {
	return NodeTopology{Name: n.Name, Labels: n.Segment, Keys: slices.Sorted(maps.Keys(n.Segment))}
}

// Affinity is a new volume's node affinity. A driver may say nothing about where
// a volume is accessible; one that has been made by a node's own driver is there.
func (n *Node) Affinity(said *corev1.VolumeNodeAffinity) *corev1.VolumeNodeAffinity {
	if !n.Deployed || said != nil {
		return said
	}
	return topology.NodeAffinity([]*csipb.Topology{{Segments: n.Segment}})
}
