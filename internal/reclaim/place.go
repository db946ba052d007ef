package reclaim

import (
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/topology"
)

// NodeAnnotation on a PersistentVolume names the node whose driver has the
// volume. A provisioner that serves one node writes it before it deletes a volume
// of which only the driver could tell. An administrator may write it.
const NodeAnnotation = "reclaim.holdfast.io/node"

// A location is where a volume is, as the provisioner of one node sees it. It matters
// because any other node's driver would answer to DeleteVolume that there is no
// such volume, which is a success.
type location int

const (
	unknownNode location = iota // nothing says on which node it is
	thisNode                    // on this node
	otherNode                   // not on this node
	namedNode                   // on another node, whose name is known
)

// locationOf tells where a volume is, and the node's name if it is named. What the
// annotation says counts most: it was found out, or an administrator knows it.
// Next is the node affinity, where it is about one node only. If it fits more,
// the volume is where it was made.
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

// creatorNode is the node whose provisioner has made a volume, "" if that is not
// known. A provisioner for one node calls itself TIME-NUMBER-DRIVER-NODE.
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

// restrictToNode narrows what is to be done about a volume with policy Delete to what
// the provisioner of this node may do. Putting a finalizer on does no harm,
// whoever does it.
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
