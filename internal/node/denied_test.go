package node

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/kube/kubetest"
)

func TestDeniedWriteIsReportedOnTheCheckpoint(t *testing.T) {
	tests := map[string]struct {
		change      func(*v1alpha1.Checkpoint)
		subresource string
		says        string
	}{
		"the finalizer of a deleted Checkpoint": {
			func(c *v1alpha1.Checkpoint) { c.DeletionTimestamp = &metav1.Time{Time: time.Now()} }, "", "removing the finalizer",
		},
		"the status": {func(c *v1alpha1.Checkpoint) { c.Status.Attempts = 3 }, "status", "writing the status of c"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := newCheckpoint()
			tt.change(c)
			w := newNodeWorld(t, []client.Object{c}, []client.Object{c})
			api, ok := w.client.(client.WithWatch)
			if !ok {
				t.Fatal("the client cannot watch")
			}
			policy, said := &kubetest.Policy{
				Response: kubetest.DeniedByPolicy("checkpoints", "c"), Denies: func(_, sub string, _ client.Object) bool { return sub == tt.subresource },
			}, record.NewFakeRecorder(9)
			w.client, w.apiReader, w.events = policy.Apply(api), api, kube.NewEventsWithRecorder(said)
			result, err := w.Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKeyFromObject(c)})
			if !kube.IsDenied(err) || result.RequeueAfter != 0 {
				t.Errorf("it is not backed off: %+v, %v", result, err)
			}
			kubetest.WantEvent(t, said, "Warning", kube.ReasonDenied, tt.says, "ValidatingAdmissionPolicy")
		})
	}
}
