package reclaim

import (
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/topology"
)

// NodeAnnotation on a PersistentVolume names the node whose driver has the
// volume. A provisioner of one node writes it before it deletes a volume whose
// node only the driver knew. An administrator may write it too.
const NodeAnnotation = "reclaim.holdfast.io/node"

// A location is where a volume is, as seen by the provisioner of one node. It
// matters because the driver of any other node would return success to
// DeleteVolume: it has no such volume.
type location int

const (
	unknownNode location = iota // unknown
	thisNode                    // on this node
	otherNode                   // on another node
	namedNode                   // on another node, and its name is known
)

// locationOf returns where a volume is, and the node's name if it is known. The
// annotation has precedence: a provisioner found the volume, or an
// administrator knows its node. Next is the node affinity if it fits only one
// node. If it fits several, the volume is on the node that created it.
func (o *Options) locationOf(volume *corev1.PersistentVolume) (location, string) {
	if o.Segment == nil {
		return thisNode, ""
	}
	if node := volume.Annotations[NodeAnnotation]; node != "" {
		return o.nodeLocation(node), node
	}
	switch o.Segment.Locate(volume.Spec.NodeAffinity, o.Node) {
	case topology.Here:
		return thisNode, o.Node
	case topology.Elsewhere:
		return otherNode, ""
	default:
	}
	if node := creatorNode(volume, o.Driver); node != "" {
		return o.nodeLocation(node), node
	}
	return unknownNode, ""
}

func (o *Options) nodeLocation(node string) location {
	if node == o.Node {
		return thisNode
	}
	return namedNode
}

// creatorNode returns the node whose provisioner created a volume, and "" if
// that is unknown. The identity of a provisioner for one node is
// TIME-NUMBER-DRIVER-NODE.
func creatorNode(volume *corev1.PersistentVolume, driver string) string {
	if volume.Spec.CSI == nil {
		return ""
	}
	parts := strings.SplitN(volume.Spec.CSI.VolumeAttributes[kube.AttributeIdentity], "-", 3)
	if len(parts) < 3 {
		return ""
	}
	node, _ := strings.CutPrefix(parts[2], driver+"-")
	if node == parts[2] {
		return ""
	}
	return node
}

// restrictToNode restricts the action for a volume with reclaim policy Delete
// to what the provisioner of this node may do. Adding a finalizer is safe for
// every node.
func (o *Options) restrictToNode(next action, volume *corev1.PersistentVolume) action {
	at, _ := o.locationOf(volume)
	switch {
	case at == thisNode, at == unknownNode && next != deleteVolume:
		return next
	case at == unknownNode:
		return locate
	case at == namedNode && next == deleteVolume:
		return reportOtherNode
	default:
		return none
	}
}
