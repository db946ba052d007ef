package capacity

import (
	"testing"

	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/kube/kubetest"
)

func TestDeniedWriteIsReportedOnTheClass(t *testing.T) {
	tests := map[string]struct {
		err  error
		old  []client.Object
		says string
	}{
		"a new object, by the role":         {kubetest.LacksPermission("create", "csistoragecapacities", ""), nil, "creating a CSIStorageCapacity for fast zone=a"},
		"a new object, by a policy":         {kubetest.DeniedByPolicy("csistoragecapacities", ""), nil, "creating a CSIStorageCapacity for fast zone=a"},
		"another capacity, by a policy":     {kubetest.DeniedByPolicy("csistoragecapacities", "x"), []client.Object{object("x", "fast", "a", 7)}, "updating CSIStorageCapacity x"},
		"a superfluous object, by a policy": {kubetest.DeniedByPolicy("csistoragecapacities", "y"), []client.Object{object("x", "fast", "a", 100), object("y", "fast", "a", 100)}, "deleting CSIStorageCapacity y"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newFixture(append(append(node("n1", "a"), class("fast")), tt.old...)...)
			policy, said := &kubetest.Policy{Response: tt.err}, record.NewFakeRecorder(9)
			w.writer = policy.Apply(fake.NewClientBuilder().Build())
			w.events = kube.NewEventsWithRecorder(said)
			if _, err := w.Reconcile(t.Context(), fastInA); !kube.IsDenied(err) || policy.Denied() != 1 {
				t.Errorf("got %v after %d requests", err, policy.Denied())
			}
			kubetest.WantEvent(t, said, "Warning", kube.ReasonDenied, tt.says)
		})
	}
}
