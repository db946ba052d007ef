package kube

import (
	"fmt"
	"hash/fnv"
)

// labelLimit is what the API takes as a label's value. Names of nodes may be
// four times as long.
const labelLimit = 63

// NodeLabelValue is a label's value that names a node after a base of at most 54
// characters: BASE-NODE, and if that is too long the base cut and hashed, and
// if even that is too long the base and a hash of all. It is the form of
// upstream's csi-provisioner, so that either finds what the other has labelled.
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

// LabelValue is a name as a label's value: itself if that fits, else as much of
// it as fits with a hash of all.
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
