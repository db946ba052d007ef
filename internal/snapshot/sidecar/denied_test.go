package sidecar

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/kube/kubetest"
)

// A denied write is in the content's status, from where it gets to the VolumeSnapshot. If the
// status may not be written either, an event on the VolumeSnapshot has it.
func TestDeniedWriteReachesTheUser(t *testing.T) {
	fresh := func(c content) { c.Status = nil }
	objectOnly := func(_, sub string, _ client.Object) bool { return sub == "" }
	tests := map[string]struct {
		change   func(content)
		ends     bool
		denies   func(verb, subresource string, o client.Object) bool
		says     string // in the status
		onObject bool   // there is an event on the VolumeSnapshot
	}{
		"the request cannot be recorded":                       {fresh, false, objectOnly, "recording the request on content c: ", false},
		"nothing can be written":                               {fresh, false, nil, "", true},
		"the result cannot be recorded":                        {fresh, false, func(_, sub string, _ client.Object) bool { return sub == "status" }, "", true},
		"the finalizer cannot be removed":                      {deleting, true, objectOnly, "removing the finalizer of content c: ", false},
		"nothing of a deleted content can be written":          {deleting, true, nil, "", true},
		"the annotation of a ready snapshot cannot be removed": {func(c content) { ready(c); beingCreated(c) }, false, objectOnly, "", true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r, _ := connectedReconciler(t, csitest.Options{}, tt.change, nil)
			api, ok := r.client.(client.WithWatch)
			if !ok {
				t.Fatal("the client cannot watch")
			}
			policy := &kubetest.Policy{Response: kubetest.LacksPermission("patch", "volumesnapshotcontents", "c"), Denies: tt.denies}
			said := record.NewFakeRecorder(20)
			said.IncludeObject = true
			r.client, r.events = policy.Apply(api), kube.NewEventsWithRecorder(said)
			for range 2 {
				result, err := (queue{r, tt.ends}).Reconcile(t.Context(), reconcile.Request{NamespacedName: types.NamespacedName{Name: "c"}})
				if !kube.IsDenied(err) || result.RequeueAfter != 0 {
					t.Fatalf("it is not backed off: %+v, %v", result, err)
				}
			}
			before := getContent(t, r)
			switch {
			case tt.says == "" && before.Status != nil && before.Status.Error != nil:
				t.Errorf("the status says %s", *before.Status.Error.Message)
			case tt.says != "" && (before.Status == nil || before.Status.Error == nil || !strings.HasPrefix(*before.Status.Error.Message, tt.says)):
				t.Errorf("the status is %+v", before.Status)
			}
			if tt.onObject {
				kubetest.WantEvent(t, said, "Warning", kube.ReasonDenied, `cannot patch resource "volumesnapshotcontents"`, "kind=VolumeSnapshot,")
			}
			policy.Response = nil
			if err := reconcileOnce(t, r, tt.ends); err != nil {
				t.Fatalf("with the permission: %v", err)
			}
			if after := getContent(t, r); !tt.ends && (after.Status == nil || !ptr.Deref(after.Status.ReadyToUse, false) || after.Status.Error != nil) {
				t.Errorf("with the permission the status is %+v", after.Status)
			}
		})
	}
}

// What a driver says about a snapshot that it does not delete is in the status.
func TestARejectedDeletionIsInTheStatus(t *testing.T) {
	r, server := connectedReconciler(t, csitest.Options{}, deleting, nil)
	server.FailNext(csi.DeleteSnapshot, codes.FailedPrecondition, "used by a clone")
	err := reconcileOnce(t, r, true)
	var driverErr *csi.Error
	if !errors.As(err, &driverErr) {
		t.Fatal(err)
	}
	if c := getContent(t, r); c.Status.Error == nil || !strings.Contains(*c.Status.Error.Message, "used by a clone") {
		t.Errorf("the status is %+v", c.Status)
	}
	if err := reconcileOnce(t, r, true); err != nil || getContent(t, r) != nil {
		t.Errorf("it is not deleted afterwards: %v", err)
	}
}
