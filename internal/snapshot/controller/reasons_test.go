package controller

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-io/holdfast/internal/snapshot"
	"github.com/holdfast-io/holdfast/internal/snapshot/sidecar"
)

// Alerts and users look for upstream's reasons.
func TestReasonsAreUpstreams(t *testing.T) {
	want := Reasons{
		Creating: "CreatingSnapshot", Created: "SnapshotCreated", Ready: "SnapshotReady",
		Validation: "SnapshotValidationError", Class: "GetSnapshotClassFailed", DefaultClass: "SetDefaultSnapshotClassFailed",
		Create: "SnapshotContentCreationFailed", ContentCreation: "SnapshotContentCreationFailed", BindFailed: "SnapshotBindFailed",
		ContentMissing: "SnapshotContentMissing", ContentMisbound: "SnapshotContentMisbound", ContentMismatch: "SnapshotContentMismatch",
		Misbound: "SnapshotMisbound", HandleSet: "SnapshotHandleSet",
		ContentDeletion: "SnapshotContentObjectDeleteError", DeletionPending: "SnapshotDeletePending",
	}
	if diff := cmp.Diff(want, singleInfo.Reasons); diff != "" {
		t.Error(diff)
	}
	of := sidecar.Reasons{Create: "SnapshotCreationFailed", Check: "SnapshotContentCheckandUpdateFailed", Delete: "SnapshotDeleteError"}
	if diff := cmp.Diff(of, sidecar.SingleKind{}.Reasons()); diff != "" {
		t.Error(diff)
	}
	missing := (&snapshot.Source{Name: "data"}).Check()
	if missing.Reason != "SnapshotPVCSourceMissing" {
		t.Error(missing.Reason)
	}
}
