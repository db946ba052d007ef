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

// After five of the codes the driver may still be at work, and after three others it
// may have done its work: the mark stays, so that the content does not go before there
// is an answer. After all others there is nothing, and the content may go. Upstream
// knows the five only; a mark that stays longer does no harm to who relies on it.
func TestTheMarkStaysWhileThereMayBeASnapshot(t *testing.T) {
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
				t.Fatal("the driver's refusal was taken as a success")
			}
			c := newContent()
			if err := r.client.Get(t.Context(), client.ObjectKeyFromObject(c), c); err != nil {
				t.Fatal(err)
			}
			if _, marked := c.Annotations[snapshot.Single.BeingCreated]; marked != slices.Contains(atWork, code) {
				t.Errorf("marked: %t", marked)
			}
			if c.Annotations[requestAnnotation] == "" {
				t.Error("what was asked for is not on record any more")
			}
		})
	}
}
