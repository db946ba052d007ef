package local

import (
	"fmt"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// topology returns the topology of all volumes of this driver: its node. Volumes that
// are attached are accessible from everywhere, so they have none.
func (o *Options) topology() *csi.Topology {
	if o.Attach {
		return nil
	}
	return &csi.Topology{Segments: map[string]string{o.DriverName + "/node": o.NodeID}}
}

// includesThisNode reports whether term includes this node.
func (o *Options) includesThisNode(term *csi.Topology) bool {
	own := o.topology().GetSegments()
	for key, value := range term.GetSegments() {
		if own[key] != value {
			return false
		}
	}
	return true
}

// checkTopology fails if the volume must be accessible from outside this node.
// Preferred terms alone require nothing (CSI spec, TopologyRequirement).
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
