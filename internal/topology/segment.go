package topology

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	storagev1 "k8s.io/api/storage/v1"
)

// A Segment is one place: topology keys of the driver with their values. The
// one without keys is the whole cluster.
type Segment map[string]string

// Keys are a driver's topology keys on a node. The driver may be there without
// any.
func Keys(node *storagev1.CSINode, driver string) (keys []string, found bool) {
	for _, d := range node.Spec.Drivers {
		if d.Name == driver {
			return d.TopologyKeys, true
		}
	}
	return nil, false
}

// SegmentOf is the segment that a node with these labels is in. If a label is missing
// it is nil, and missing the first such key: the kubelet writes the labels a
// moment after the keys.
func SegmentOf(labels map[string]string, keys []string) (s Segment, missing string) {
	s = make(Segment, len(keys))
	for _, key := range keys {
		value, ok := labels[key]
		if !ok {
			return nil, key
		}
		s[key] = value
	}
	return s, ""
}

// Contains tells whether a node with these labels is in the segment.
func (s Segment) Contains(labels map[string]string) bool {
	for key, value := range s {
		if got, ok := labels[key]; !ok || got != value {
			return false
		}
	}
	return true
}

// String is the same for equal segments and different for others: neither keys
// nor values of labels can have a comma or an equals sign.
func (s Segment) String() string {
	var b strings.Builder
	for i, key := range s.keys() {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(key)
		b.WriteByte('=')
		b.WriteString(s[key])
	}
	return b.String()
}

func (s Segment) keys() []string { return slices.Sorted(maps.Keys(s)) }

// Compare orders segments by number of keys, then key by key, each with its
// value.
func Compare(a, b Segment) int {
	if by := cmp.Compare(len(a), len(b)); by != 0 {
		return by
	}
	others := b.keys()
	for i, key := range a.keys() {
		if by := cmp.Or(cmp.Compare(key, others[i]), cmp.Compare(a[key], b[others[i]])); by != 0 {
			return by
		}
	}
	return 0
}

// Normalize sorts segments and drops doubles, so that the same cluster always
// gives the same list.
func Normalize(all []Segment) []Segment {
	slices.SortFunc(all, Compare)
	return slices.CompactFunc(all, maps.Equal[Segment])
}
