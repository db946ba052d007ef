package kube

import (
	"fmt"
	"hash/fnv"
)

// labelLimit is the maximum length of a label's value. A node's name may be four times
// as long.
const labelLimit = 63

// NodeLabelValue returns a label's value BASE-NODE, with a base of at most 54
// characters. If that is too long, it truncates the base and adds its hash. If that is
// still too long, it returns the base and a hash of everything. This is the form of
// upstream's csi-provisioner, so that each finds what the other has labelled.
func NodeLabelValue(base, node string) string {
	whole := base + "-" + node
	if len(whole) <= labelLimit {
		return whole
	}
	if left := labelLimit - len("-01234567-") - len(node); left > 0 {
		return fmt.Sprintf("%s-%s-%s", base[:left], hash(base), node)
	}
	return base + "-" + hash(whole)
}

// LabelValue returns a name as a label's value. It truncates a name that is too long
// and adds a hash of it.
func LabelValue(name string) string {
	if len(name) <= labelLimit {
		return name
	}
	return name[:labelLimit-len("-01234567")] + "-" + hash(name)
}

func hash(s string) string {
	h := fnv.New32a()
	h.Write([]byte(s))
	return fmt.Sprintf("%08x", h.Sum32())
}
