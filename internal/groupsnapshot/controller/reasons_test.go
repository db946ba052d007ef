package controller

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime/schema"

	snapshotcontroller "github.com/holdfast-io/holdfast/internal/snapshot/controller"
)

// Alerts and users look for upstream's reasons.
func TestReasonsAreUpstreams(t *testing.T) {
	want := snapshotcontroller.Reasons{
		Creating: "CreatingGroupSnapshot", Created: "GroupSnapshotCreated", Ready: "GroupSnapshotReady",
		Validation: "GroupSnapshotValidationError", Class: "GetGroupSnapshotClassFailed", DefaultClass: "SetDefaultGroupSnapshotClassFailed",
		Create: "CreateGroupSnapshotContentFailed", ContentCreation: "GroupSnapshotContentCreationFailed", BindFailed: "GroupSnapshotBindFailed",
		ContentMissing: "GroupSnapshotContentMissing", ContentMisbound: "GroupSnapshotContentMisbound", ContentMismatch: "GroupSnapshotContentMismatch",
		Misbound: "GroupSnapshotMisbound", HandleSet: "GroupSnapshotHandleSet",
		ContentDeletion: "GroupSnapshotContentObjectDeleteError", DeletionPending: "SnapshotDeletePending",
	}
	if diff := cmp.Diff(want, kindInfo(schema.GroupVersion{}).Reasons); diff != "" {
		t.Error(diff)
	}
	if reasonDelete != "SnapshotDeleteError" {
		t.Error(reasonDelete)
	}
}
