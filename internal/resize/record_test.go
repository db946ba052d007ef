package resize

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-io/holdfast/internal/csi"
)

// What is not known about a call stays on record over refusals and other calls,
// until the driver has done one.
func TestThatACallMayHaveDoneItsWorkStaysOnRecord(t *testing.T) {
	const since = corev1.PersistentVolumeClaimResizing
	claim := bound(csi.Info{}).claim
	beginExpansion(claim, 9*gib, noon)
	for _, f := range []refusal{{code: "Internal", outcome: outcomeUnknown}, {code: "Internal", outcome: outcomeDoubtful}, {code: "OutOfRange", infeasible: true}} {
		refuseExpansion(claim, f, noon)
		beginExpansion(claim, 9*gib, noon)
	}
	beginExpansion(claim, 2*gib, noon)
	if got := doubt(claim, since); got != outcomeUnknown {
		t.Fatalf("on record is %q", got)
	}
	// Quotas count what is allocated.
	node := claim.DeepCopy()
	endExpansion(claim, 9*gib)
	leaveToNode(node, 9*gib, noon)
	for name, c := range map[string]*corev1.PersistentVolumeClaim{"at once": claim, "with the node": node} {
		if got := sizeOf(c.Status.AllocatedResources); got != 9*gib || doubt(c, since) != "" {
			t.Errorf("%s: %d bytes are allocated, doubt %q", name, got, doubt(c, since))
		}
	}
}

func TestWhatWasRefusedAtOnceAllocatesNoMoreThanWasAskedFor(t *testing.T) {
	claim := bound(csi.Info{}).claim
	beginExpansion(claim, 9*gib, noon)
	refuseExpansion(claim, refusal{code: "OutOfRange", infeasible: true}, noon)
	beginExpansion(claim, 2*gib, noon)
	endExpansion(claim, 3*gib) // The driver rounds up.
	if got := sizeOf(claim.Status.AllocatedResources); got != 2*gib {
		t.Errorf("%d bytes are allocated", got)
	}
}

func TestThatAClassMayBeAppliedStaysOnRecord(t *testing.T) {
	const since = corev1.PersistentVolumeClaimVolumeModifyingVolume
	claim := bound(csi.Info{}).claim
	beginModification(claim, "gold", noon)
	refuseModification(claim, refusal{code: "InvalidArgument", infeasible: true, outcome: outcomeUnknown}, noon)
	awaitClass(claim, "missing")
	beginModification(claim, "bronze", noon)
	refuseModification(claim, refusal{code: "InvalidArgument", infeasible: true}, noon)
	if got := doubt(claim, since); got != outcomeUnknown {
		t.Errorf("on record is %q", got)
	}
	endModification(claim, "silver")
	if got := doubt(claim, since); got != "" {
		t.Errorf("it is done, and on record is %q", got)
	}
}
