package pernode

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// node returns the options of the provisioner on node n1.
func node() *Node {
	return &Node{
		Deployed: true, Name: "n1", Segment: map[string]string{"zone": "a", "host": "n1"},
		ImmediateBinding: true, BaseDelay: time.Second, MaxDelay: time.Minute,
	}
}

func TestIsSelectedFor(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*corev1.PersistentVolumeClaim)
		want   bool
	}{
		"a claim of the node":                        {func(*corev1.PersistentVolumeClaim) {}, true},
		"a claim that it has given back":             {func(c *corev1.PersistentVolumeClaim) { delete(c.Annotations, kube.AnnSelectedNode) }, false},
		"a claim that another node has got since":    {func(c *corev1.PersistentVolumeClaim) { c.Annotations[kube.AnnSelectedNode] = "n2" }, false},
		"a claim that another node has served since": {func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeName = "pvc" }, false},
		"another claim of the same name":             {func(c *corev1.PersistentVolumeClaim) { c.UID = "new" }, false},
	} {
		t.Run(name, func(t *testing.T) {
			c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{UID: "old", Annotations: map[string]string{kube.AnnSelectedNode: "n1"}}}
			tt.change(c)
			if got := node().IsSelectedFor(c, "old"); got != tt.want {
				t.Errorf("got %t", got)
			}
		})
	}
}

func TestNodeFlags(t *testing.T) {
	var n Node
	n.AddFlags(pflag.NewFlagSet("test", pflag.ContinueOnError))
	want := Node{ImmediateBinding: true, BaseDelay: 20 * time.Second, MaxDelay: time.Minute}
	if diff := cmp.Diff(want, n); diff != "" {
		t.Error(diff)
	}
}

func TestNodeValidate(t *testing.T) {
	tests := map[string]struct {
		change func(*Node)
		want   string // in the error, "" for none
	}{
		"valid options":                                      {func(*Node) {}, ""},
		"a node without a name":                              {func(n *Node) { n.Name = "" }, "NODE_NAME"},
		"a node without topology":                            {func(n *Node) { n.Segment = nil }, "topology"},
		"the base delay must be positive":                    {func(n *Node) { n.BaseDelay = 0 }, "--node-deployment-base-delay"},
		"the maximum delay must not be below the base delay": {func(n *Node) { n.MaxDelay = time.Millisecond }, "--node-deployment-max-delay"},
		"a provisioner for all nodes needs no other option":  {func(n *Node) { *n = Node{} }, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			n := node()
			tt.change(n)
			err := n.Validate()
			if (err != nil) != (tt.want != "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}
