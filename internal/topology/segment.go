package topology

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	storagev1 "k8s.io/api/storage/v1"
)

// A Segment is a topology segment: the driver's topology keys with their values.
// The segment without keys is the whole cluster.
type Segment map[string]string

// Keys returns a driver's topology keys on a node, and whether the driver is
// registered there. A registered driver may have no keys.
func Keys(node *storagev1.CSINode, driver string) (keys []string, found bool) {
	for _, d := range node.Spec.Drivers {
		if d.Name == driver {
			return d.TopologyKeys, true
		}
	}
	return nil, false
}

// SegmentOf returns the segment of a node with these labels. If a label is missing
// it returns nil and the first missing key: the kubelet sets the labels shortly
// after the keys.
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

// Contains reports whether a node with these labels is in the segment.
func (s Segment) Contains(labels map[string]string) bool {
	for key, value := range s {
		if got, ok := labels[key]; !ok || got != value {
			return false
		}
	}
	return true
}

// String is unique for each segment: keys and values of labels cannot contain a
// comma or an equals sign.
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

// Compare orders segments by the number of keys, then by the first key or value
// that differs.
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

// Normalize sorts segments and removes duplicates, so that the same cluster always
// has the same list.
func Normalize(all []Segment) []Segment {
	slices.SortFunc(all, Compare)
	return slices.CompactFunc(all, maps.Equal[Segment])
}
