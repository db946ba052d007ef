package provision

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/provision/placement"
)

func TestNodesAndTheSelectedNodeAreObserved(t *testing.T) {
	o := options()
	c := fake.NewClientBuilder().WithScheme(clientgoscheme.Scheme).WithObjects(
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{"zone": "a"}}},
		&storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Spec: storagev1.CSINodeSpec{
			Drivers: []storagev1.CSINodeDriver{{Name: o.Driver, NodeID: "n1", TopologyKeys: []string{"zone"}}},
		}},
	).Build()
	r := &Reconciler{client: c, options: o, nodes: placement.NewCache(c, o.Driver)}
	for selected, want := range map[string]bool{"": false, "n1": true, "gone": false} {
		s := state{claim: claim(), class: class(), info: driverInfo(t, csitest.Options{Segments: []map[string]string{{"zone": "a"}}})}
		s.claim.Annotations[kube.AnnSelectedNode] = selected
		if err := r.observeNodes(t.Context(), &s); err != nil {
			t.Fatal(err)
		}
		if n := len(s.nodes.Segments(nil)); n != 1 {
			t.Errorf("selected node %q: %d zones", selected, n)
		}
		if got := s.selected; (got != nil) != want || got != nil && got.Labels["zone"] != "a" {
			t.Errorf("selected node %q: observed %v", selected, got)
		}
	}
}
