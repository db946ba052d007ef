package local

import (
	"fmt"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// topology is where all volumes of this driver are: on its node. Those that are
// attached are everywhere, which is said by saying nothing.
func (o *Options) topology() *csi.Topology {
	if o.Attach {
		return nil
	}
	return &csi.Topology{Segments: map[string]string{o.DriverName + "/node": o.NodeID}}
}

// includesThisNode tells whether term includes this node.
func (o *Options) includesThisNode(term *csi.Topology) bool {
	own := o.topology().GetSegments()
	for key, value := range term.GetSegments() {
		if own[key] != value {
			return false
		}
	}
	return true
}

// checkTopology fails when what is asked for must be usable from elsewhere than this
// node. Preferred terms alone demand nothing (CSI spec, TopologyRequirement).
func (o *Options) checkTopology(r *csi.TopologyRequirement) error {
	if len(r.GetRequisite()) == 0 {
		return nil
	}
	for _, term := range r.GetRequisite() {
		if o.includesThisNode(term) {
			return nil
		}
	}
	if o.Attach {
		return invalid("the driver has no topology, and the accessibility requirements name one")
	}
	return fmt.Errorf("%w: volumes are made on %s, which the accessibility requirements leave out", errWrongTopology, o.NodeID)
}
