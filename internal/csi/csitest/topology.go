package csitest

import (
	"context"
	"maps"
	"math"
	"slices"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// noSegment is the segment of volumes of a driver without topology.
const noSegment = -1

// chooseSegment returns the first allowed segment that has enough capacity:
// preferred ones in order, then the requisite ones, or any if the request has no
// requirements.
func (d *Driver) chooseSegment(requested *csipb.TopologyRequirement, size int64) (int, error) {
	for _, segment := range d.allowedSegments(requested) {
		if d.freeBytes(segment) >= size {
			return segment, nil
		}
	}
	return 0, status.Errorf(codes.ResourceExhausted, "no allowed segment has %d free bytes", size)
}

func (d *Driver) allowedSegments(requested *csipb.TopologyRequirement) []int {
	if len(d.opts.Segments) == 0 {
		return []int{noSegment}
	}
	var allowed []int
	if len(requested.GetPreferred())+len(requested.GetRequisite()) == 0 {
		for i := range d.opts.Segments {
			allowed = append(allowed, i)
		}
		return allowed
	}
	for _, topology := range slices.Concat(requested.GetPreferred(), requested.GetRequisite()) {
		for i := range d.opts.Segments {
			if d.isInTopology(i, topology) && !slices.Contains(allowed, i) {
				allowed = append(allowed, i)
			}
		}
	}
	return allowed
}

// isAllowed reports whether a volume in the segment meets the requirements.
func (d *Driver) isAllowed(segment int, requested *csipb.TopologyRequirement) bool {
	return segment == noSegment || slices.Contains(d.allowedSegments(requested), segment)
}

func (d *Driver) isInTopology(segment int, topology *csipb.Topology) bool {
	for key, value := range topology.GetSegments() {
		if d.opts.Segments[segment][key] != value {
			return false
		}
	}
	return true
}

// freeBytes is the free capacity of a segment.
func (d *Driver) freeBytes(segment int) int64 {
	if d.opts.Capacity == 0 {
		return math.MaxInt64
	}
	free := d.opts.Capacity
	for _, v := range d.state.volumes {
		if v.segment == segment {
			free -= v.info.GetCapacityBytes()
		}
	}
	return free
}

func (d *Driver) topologyOf(segment int) []*csipb.Topology {
	if segment == noSegment {
		return nil
	}
	return []*csipb.Topology{{Segments: maps.Clone(d.opts.Segments[segment])}}
}

func (d controller) GetCapacity(_ context.Context, req *csipb.GetCapacityRequest) (*csipb.GetCapacityResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if caps := req.GetVolumeCapabilities(); len(caps) > 0 {
		if err := checkCapabilities(caps...); err != nil {
			return nil, err
		}
	}
	var requested *csipb.TopologyRequirement
	if t := req.GetAccessibleTopology(); t != nil {
		requested = &csipb.TopologyRequirement{Requisite: []*csipb.Topology{t}}
	}
	resp := &csipb.GetCapacityResponse{}
	for _, segment := range d.allowedSegments(requested) {
		if free := d.freeBytes(segment); free > math.MaxInt64-resp.AvailableCapacity {
			resp.AvailableCapacity = math.MaxInt64
		} else {
			resp.AvailableCapacity += max(free, 0)
		}
	}
	if d.opts.MaxVolumeSize > 0 {
		resp.MaximumVolumeSize = wrapperspb.Int64(d.opts.MaxVolumeSize)
	}
	return resp, nil
}
