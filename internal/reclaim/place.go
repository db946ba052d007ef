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

// A place is where a volume is, as the provisioner of one node sees it. It matters
// because any other node's driver would answer to DeleteVolume that there is no
// such volume, which is a success.
type place int

const (
	perhaps   place = iota // nothing says on which node it is
	here                   // on this node
	elsewhere              // not on this node
	named                  // on another node, whose name is known
)

// place tells where a volume is, and the node's name if it is named. What the
// annotation says counts most: it was found out, or an administrator knows it.
// Next is the node affinity, where it is about one node only. If it fits more,
// the volume is where it was made.
func (o *Options) place(volume *corev1.PersistentVolume) (place, string) {
	if o.Segment == nil {
		return here, ""
	}
	if node := volume.Annotations[NodeAnnotation]; node != "" {
		return o.is(node), node
	}
	switch o.Segment.Locate(volume.Spec.NodeAffinity, o.Node) {
	case topology.Here:
		return here, o.Node
	case topology.Elsewhere:
		return elsewhere, ""
	default:
	}
	if node := makerOf(volume, o.Driver); node != "" {
		return o.is(node), node
	}
	return perhaps, ""
}

func (o *Options) is(node string) place {
	if node == o.Node {
		return here
	}
	return named
}

// makerOf is the node whose provisioner has made a volume, "" if that is not
// known. A provisioner for one node calls itself TIME-NUMBER-DRIVER-NODE.
func makerOf(volume *corev1.PersistentVolume, driver string) string {
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

// fromHere narrows what is to be done about a volume with policy Delete to what
// the provisioner of this node may do. Putting a finalizer on does no harm,
// whoever does it.
func (o *Options) fromHere(next kind, volume *corev1.PersistentVolume) kind {
	at, _ := o.place(volume)
	switch {
	case at == here, at == perhaps && next != destroy:
		return next
	case at == perhaps:
		return locate
	case at == named && next == destroy:
		return leave
	default:
		return rest
	}
}
