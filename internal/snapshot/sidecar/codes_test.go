package sidecar

import (
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// After five codes the driver may still be working, and after three others it may have created
// the snapshot: the being-created annotation stays, so that the content is not deleted before
// the outcome is known. After all other codes nothing was created, and the content may be
// deleted. Upstream only keeps the annotation after the five codes. Keeping it longer does no
// harm to programs that rely on it.
func TestAnnotationStaysWhileASnapshotMayExist(t *testing.T) {
	atWork := []codes.Code{
		codes.Canceled, codes.DeadlineExceeded, codes.Unavailable, codes.ResourceExhausted, codes.Aborted,
		codes.Internal, codes.Unknown, codes.AlreadyExists,
	}
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		t.Run(code.String(), func(t *testing.T) {
			r, server := connectedReconciler(t, csitest.Options{}, func(c content) { c.Status = nil }, nil)
			r.events = kube.NewEventsWithRecorder(record.NewFakeRecorder(10))
			server.FailNext(csi.CreateSnapshot, code, "as the test says")
			if _, err := (queue{r, false}).Reconcile(t.Context(), reconcile.Request{NamespacedName: types.NamespacedName{Name: "c"}}); err == nil {
				t.Fatal("the driver's error was taken as a success")
			}
			c := newContent()
			if err := r.client.Get(t.Context(), client.ObjectKeyFromObject(c), c); err != nil {
				t.Fatal(err)
			}
			if _, marked := c.Annotations[snapshot.Single.BeingCreated]; marked != slices.Contains(atWork, code) {
				t.Errorf("marked: %t", marked)
			}
			if c.Annotations[requestAnnotation] == "" {
				t.Error("the request is not recorded any more")
			}
		})
	}
}
