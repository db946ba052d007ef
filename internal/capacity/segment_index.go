package capacity

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// A segmentIndex finds the segments that a volume may be accessible from. With a topology
// for each node, every event of a volume would otherwise go through all nodes.
type segmentIndex struct {
	all     segmentSet
	with    map[string]map[string][]string // segments by key and value
	without map[string][]string            // segments that lack a key that others have
}

func newSegmentIndex(all segmentSet) *segmentIndex {
	x := &segmentIndex{all: all, with: map[string]map[string][]string{}, without: map[string][]string{}}
	for text, segment := range all {
		for key, value := range segment {
			if x.with[key] == nil {
				x.with[key] = map[string][]string{}
			}
			x.with[key][value] = append(x.with[key][value], text)
		}
	}
	for key := range x.with {
		for text, segment := range all {
			if _, has := segment[key]; !has {
				x.without[key] = append(x.without[key], text)
			}
		}
	}
	return x
}

// reachable returns the segments that can reach a volume with this affinity, in order.
func (x *segmentIndex) reachable(affinity *corev1.VolumeNodeAffinity) []string {
	var near []string
	for _, text := range x.candidates(affinity) {
		if x.all[text].CanReach(affinity) {
			near = append(near, text)
		}
	}
	return near
}

// candidates returns the segments that may reach a volume with this affinity, in order:
// for each term those that meet its narrowest requirement.
func (x *segmentIndex) candidates(affinity *corev1.VolumeNodeAffinity) []string {
	if affinity == nil || affinity.Required == nil {
		return slices.Sorted(maps.Keys(x.all))
	}
	var found []string
	for i := range affinity.Required.NodeSelectorTerms {
		narrowest, ok := x.narrowest(affinity.Required.NodeSelectorTerms[i].MatchExpressions)
		if !ok {
			return slices.Sorted(maps.Keys(x.all))
		}
		found = append(found, narrowest...)
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// narrowest returns the segments that meet the requirement of a term that the fewest meet.
// A segment without the key meets it. It is false if no requirement can be looked up.
func (x *segmentIndex) narrowest(term []corev1.NodeSelectorRequirement) (segments []string, ok bool) {
	for _, r := range term {
		values, known := x.with[r.Key]
		if !known || r.Operator != corev1.NodeSelectorOpIn {
			continue
		}
		meet := slices.Clone(x.without[r.Key])
		for _, value := range r.Values {
			meet = append(meet, values[value]...)
		}
		if !ok || len(meet) < len(segments) {
			segments, ok = meet, true
		}
	}
	return segments, ok
}
