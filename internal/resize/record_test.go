package resize

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-io/holdfast/internal/csi"
)

// The record of an unknown outcome stays over rejections and other calls, until a call
// succeeds.
func TestUnknownExpansionStaysOnRecord(t *testing.T) {
	const since = corev1.PersistentVolumeClaimResizing
	claim := bound(csi.Info{}).claim
	startExpansion(claim, 9*gib, false, noon)
	for _, f := range []rejection{{code: "Internal", outcome: outcomeUnknown}, {code: "Internal", outcome: outcomeDoubtful}, {code: "OutOfRange", infeasible: true}} {
		rejectExpansion(claim, f, noon)
		startExpansion(claim, 9*gib, false, noon)
	}
	startExpansion(claim, 2*gib, false, noon)
	if got := outcomeDoubt(claim, since); got != outcomeUnknown {
		t.Fatalf("recorded reason is %q", got)
	}
	// Quotas count AllocatedResources.
	node := claim.DeepCopy()
	finishExpansion(claim, 9*gib)
	setNodePending(node, 9*gib, noon)
	for name, c := range map[string]*corev1.PersistentVolumeClaim{"controller only": claim, "controller and node": node} {
		if got := sizeOf(c.Status.AllocatedResources); got != 9*gib || outcomeDoubt(c, since) != "" {
			t.Errorf("%s: %d bytes are allocated, doubt %q", name, got, outcomeDoubt(c, since))
		}
	}
}

func TestRejectedExpansionAllocatesOnlyTheRequest(t *testing.T) {
	claim := bound(csi.Info{}).claim
	startExpansion(claim, 9*gib, false, noon)
	rejectExpansion(claim, rejection{code: "OutOfRange", infeasible: true}, noon)
	startExpansion(claim, 2*gib, false, noon)
	finishExpansion(claim, 3*gib) // The driver rounds up.
	if got := sizeOf(claim.Status.AllocatedResources); got != 2*gib {
		t.Errorf("%d bytes are allocated", got)
	}
}

func TestUnknownModificationStaysOnRecord(t *testing.T) {
	const since = corev1.PersistentVolumeClaimVolumeModifyingVolume
	claim := bound(csi.Info{}).claim
	startModification(claim, "gold", noon)
	rejectModification(claim, rejection{code: "InvalidArgument", infeasible: true, outcome: outcomeUnknown}, noon)
	setClassPending(claim, "missing")
	startModification(claim, "bronze", noon)
	rejectModification(claim, rejection{code: "InvalidArgument", infeasible: true}, noon)
	if got := outcomeDoubt(claim, since); got != outcomeUnknown {
		t.Errorf("recorded reason is %q", got)
	}
	finishModification(claim, "silver")
	if got := outcomeDoubt(claim, since); got != "" {
		t.Errorf("after success the recorded reason is %q", got)
	}
}
