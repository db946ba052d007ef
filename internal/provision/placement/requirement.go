package placement

import (
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"
	"strings"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-io/holdfast/internal/topology"
)

// Input is all that the place of a new volume depends on.
type Input struct {
	ClaimName   string
	Selected    *NodeTopology // by the scheduler; nil if the class binds immediately
	Strict      bool          // --strict-topology
	AllSegments bool          // --immediate-topology: all segments for a class that binds immediately
	Allowed     []corev1.TopologySelectorTerm
	Nodes       *Nodes // of the cluster; nil for none
}

// Requirement returns the topology requirement of a new volume, nil for none.
//
//	binding    strict  allowedTopologies  requisite                           preferred
//	waits      yes     any                segment of the selected node        the same
//	waits      no      none               all segments of the cluster         rotated: selected node's first
//	waits      no      set                those within allowedTopologies      rotated: selected node's first
//	immediate  -       set                those within allowedTopologies      rotated by the claim's name
//	immediate  -       none               all if AllSegments, else nothing    rotated by the claim's name
//
// The driver is sent segments with all its keys, also if allowedTopologies have fewer: with them
// it can create the volume near the selected node. If no node is within allowedTopologies yet,
// they are sent as they are.
func Requirement(in Input) (*csipb.TopologyRequirement, error) {
	allowed := topology.Normalize(ExpandTerms(in.Allowed))
	if in.Selected != nil {
		return in.waitForFirstConsumer(allowed)
	}
	if len(in.Allowed) == 0 && !in.AllSegments {
		return nil, nil
	}
	requisite := in.Nodes.Segments(allowed)
	if len(requisite) == 0 {
		requisite = allowed
	}
	if len(requisite) == 0 {
		return nil, errors.New("no node has the driver and its topology labels: is the driver running on the nodes?")
	}
	return newRequirement(requisite, rotation(in.ClaimName, len(requisite))), nil
}

// waitForFirstConsumer returns the requirement for a class that waits for the first
// consumer.
func (in Input) waitForFirstConsumer(allowed []topology.Segment) (*csipb.TopologyRequirement, error) {
	own, err := in.Selected.Segment()
	if err != nil {
		return nil, err
	}
	if len(in.Allowed) > 0 && !in.Selected.isWithin(allowed) {
		return nil, fmt.Errorf("node %s, which the scheduler selected, is outside the allowedTopologies of the StorageClass", in.Selected.Name)
	}
	if in.Strict {
		return newRequirement([]topology.Segment{own}, 0), nil
	}
	requisite := withSegment(in.Nodes.Segments(allowed), own)
	first := slices.IndexFunc(requisite, func(s topology.Segment) bool { return maps.Equal(s, own) })
	return newRequirement(requisite, first), nil
}

// Segment returns the node's own segment.
func (n *NodeTopology) Segment() (topology.Segment, error) {
	if len(n.Keys) == 0 {
		return nil, fmt.Errorf("node %s, which the scheduler selected, has no topology keys of the driver in its CSINode: the claim waits until the driver is registered there; "+
			"where the driver shall not be, keep the scheduler away by --enable-capacity with storageCapacity in the CSIDriver, or by allowedTopologies of the StorageClass", n.Name)
	}
	s, missing := topology.SegmentOf(n.Labels, n.Keys)
	if missing != "" {
		return nil, fmt.Errorf("node %s lacks the label %s that the driver's topology needs", n.Name, missing)
	}
	return s, nil
}

// withSegment adds a segment to a sorted list of distinct ones if the list lacks it.
func withSegment(all []topology.Segment, one topology.Segment) []topology.Segment {
	if at, has := slices.BinarySearchFunc(all, one, topology.Compare); !has {
		return slices.Concat(all[:at], []topology.Segment{one}, all[at:])
	}
	return all
}

// ExpandTerms returns the segments that the terms of allowedTopologies select: for each
// term the product of the values of its expressions.
func ExpandTerms(terms []corev1.TopologySelectorTerm) []topology.Segment {
	var all []topology.Segment
	for _, term := range terms {
		product := []topology.Segment{{}}
		for _, expression := range term.MatchLabelExpressions {
			var next []topology.Segment
			for _, s := range product {
				for _, value := range expression.Values {
					grown := maps.Clone(s)
					grown[expression.Key] = value
					next = append(next, grown)
				}
			}
			product = next
		}
		all = append(all, product...)
	}
	return all
}

// rotation returns where in n segments the preferred list begins. It spreads the claims
// of a StatefulSet over the segments, and the claims of one pod begin at the same
// segment: a name NAME-SET-3 counts 3 from the hash of SET. external-provisioner does
// the same.
func rotation(claim string, n int) int {
	hash, index := claim, uint32(0)
	if cut := strings.LastIndexByte(claim, '-'); cut >= 0 {
		if ordinal, err := strconv.ParseUint(claim[cut+1:], 10, 32); err == nil {
			index = uint32(ordinal)
			hash = claim[strings.LastIndexByte(claim[:cut], '-')+1 : cut]
		}
	}
	h := fnv.New32()
	h.Write([]byte(hash))
	return int((h.Sum32() + index) % uint32(n))
}

// newRequirement returns a requirement whose preferred list begins at first.
func newRequirement(requisite []topology.Segment, first int) *csipb.TopologyRequirement {
	r := &csipb.TopologyRequirement{}
	for i := range requisite {
		r.Requisite = append(r.Requisite, &csipb.Topology{Segments: requisite[i]})
		r.Preferred = append(r.Preferred, &csipb.Topology{Segments: requisite[(first+i)%len(requisite)]})
	}
	return r
}
