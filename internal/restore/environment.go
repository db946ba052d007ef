package restore

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/runtime/cpu"
)

// differences compares what a Checkpoint was made with and what a node has, and says all that
// forbids a restore; "" if nothing does. Relaxed permits what CRIU can bear, or finds out
// itself: an older kernel, another CRI runtime, and the lack of instructions, by which a
// process that uses them is killed. What is not known on both sides is not compared.
func differences(there, here *v1alpha1.Environment, node string, relaxed bool) string {
	texts := slices.Concat(differ("architecture", there.Architecture, here.Architecture, node), differ("version of control groups", there.Cgroup, here.Cgroup, node))
	if isOlder(here.CRIU, there.CRIU) {
		texts = append(texts, fmt.Sprintf("the Checkpoint was made with CRIU %s, and %s has %s, which is older: update it", there.CRIU, node, here.CRIU))
	}
	if missing := cpu.Missing(strings.Fields(there.CPUFeatures), strings.Fields(here.CPUFeatures), relaxed); len(missing) > 0 {
		texts = append(texts, fmt.Sprintf("the CPU of %s lacks %s, which the one of the Checkpoint had", node, strings.Join(missing, ", ")))
	}
	if relaxed {
		return strings.Join(texts, "; ")
	}
	if kindOf(there.Runtime) != kindOf(here.Runtime) {
		texts = append(texts, differ("CRI runtime", there.Runtime, here.Runtime, node)...)
	}
	if isOlder(here.Kernel, there.Kernel) {
		texts = append(texts, fmt.Sprintf("the Checkpoint was made with kernel %s, and %s has %s, which is older", there.Kernel, node, here.Kernel))
	}
	return strings.Join(texts, "; ")
}

// differ says that a fact differs; it is empty if the fact does not, or is not known.
func differ(what, then, now, node string) []string {
	if then == now || then == "" || now == "" {
		return nil
	}
	return []string{fmt.Sprintf("the %s differs: the Checkpoint was made with %s, and %s has %s", what, then, node, now)}
}

// kindOf returns the CRI runtime of a name such as containerd://2.1.9. CRI-O calls itself
// cri-o and its program crio.
func kindOf(runtime string) string {
	kind, _, _ := strings.Cut(runtime, "://")
	return strings.ReplaceAll(kind, "-", "")
}

// isOlder compares versions such as 4.2.1 by their major and minor numbers.
func isOlder(version, than string) bool {
	a, b := numbers(version), numbers(than)
	if a == nil || b == nil {
		return false // One of them is not known.
	}
	return cmp.Or(cmp.Compare(a[0], b[0]), cmp.Compare(a[1], b[1])) < 0
}

// numbers returns the major and the minor number of a version; nil if it has none.
func numbers(version string) []int {
	fields := strings.SplitN(version, ".", 3)
	if len(fields) < 2 {
		return nil
	}
	var both []int
	for _, field := range fields[:2] {
		digits := len(field) - len(strings.TrimLeft(field, "0123456789"))
		n, err := strconv.Atoi(field[:digits])
		if err != nil {
			return nil
		}
		both = append(both, n)
	}
	return both
}
