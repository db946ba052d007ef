package checkpoint

import (
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/kube/kubetest"
)

func TestDeniedWriteIsReportedOnTheCheckpoint(t *testing.T) {
	deleted := func(c *v1alpha1.Checkpoint) {
		c.DeletionTimestamp, c.Finalizers = &metav1.Time{Time: time.Now()}, []string{v1alpha1.Finalizer}
	}
	tests := map[string]struct {
		change func(*v1alpha1.Checkpoint)
		next   step
		denies func(verb, subresource string, o client.Object) bool
		says   string
		status bool // the status says so, too
	}{
		"the finalizer": {
			func(*v1alpha1.Checkpoint) {}, step{action: wait}, func(_, sub string, _ client.Object) bool { return sub == "" }, "adding the finalizer", true,
		},
		"everything":                            {func(*v1alpha1.Checkpoint) {}, step{action: wait}, nil, "adding the finalizer", false},
		"the finalizer of a deleted Checkpoint": {deleted, step{action: release}, nil, "removing the finalizer", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			scheme := runtime.NewScheme()
			if err := v1alpha1.AddToScheme(scheme); err != nil {
				t.Fatal(err)
			}
			c := &v1alpha1.Checkpoint{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "c", UID: "uid"}}
			tt.change(c)
			api := fake.NewClientBuilder().WithScheme(scheme).WithObjects(c).WithStatusSubresource(c).Build()
			policy, said := &kubetest.Policy{Response: kubetest.DeniedByPolicy("checkpoints", "c"), Denies: tt.denies}, record.NewFakeRecorder(9)
			r := &Reconciler{client: policy.Apply(api), apiReader: api, events: kube.NewEventsWithRecorder(said), options: &Options{}, now: time.Now}
			if err := api.Get(t.Context(), client.ObjectKeyFromObject(c), c); err != nil {
				t.Fatal(err)
			}
			var err error
			if tt.next.action == release {
				_, err = r.execute(t.Context(), &state{checkpoint: c}, tt.next)
			} else {
				err = r.assign(t.Context(), &state{checkpoint: c}, tt.next)
			}
			if err := r.reportDenied(t.Context(), c, err); !kube.IsDenied(err) || kube.IsConflict(err) {
				t.Errorf("got %v", err)
			}
			kubetest.WantEvent(t, said, "Warning", kube.ReasonDenied, tt.says, "ValidatingAdmissionPolicy")
			if err := api.Get(t.Context(), client.ObjectKeyFromObject(c), c); err != nil {
				t.Fatal(err)
			}
			if ready := meta.FindStatusCondition(c.Status.Conditions, v1alpha1.ConditionReady); (ready != nil) != tt.status {
				t.Errorf("the condition is %+v", ready)
			}
		})
	}
}
