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

func TestANodeMakesSureOfAClaimBeforeItAsksTheDriver(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*corev1.PersistentVolumeClaim)
		want   bool
	}{
		"a claim that is the node's":                 {func(*corev1.PersistentVolumeClaim) {}, true},
		"one that it has given back":                 {func(c *corev1.PersistentVolumeClaim) { delete(c.Annotations, kube.AnnSelectedNode) }, false},
		"one that another node has taken since":      {func(c *corev1.PersistentVolumeClaim) { c.Annotations[kube.AnnSelectedNode] = "n2" }, false},
		"one that another node has served since":     {func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeName = "pvc" }, false},
		"another one that has the name by this time": {func(c *corev1.PersistentVolumeClaim) { c.UID = "new" }, false},
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
		"the usual is right":                             {func(*Node) {}, ""},
		"a node has a name":                              {func(n *Node) { n.Name = "" }, "NODE_NAME"},
		"a node has a topology":                          {func(n *Node) { n.Segment = nil }, "topology"},
		"who waits has to wait for something":            {func(n *Node) { n.BaseDelay = 0 }, "--node-deployment-base-delay"},
		"the longest pause is the longest":               {func(n *Node) { n.MaxDelay = time.Millisecond }, "--node-deployment-max-delay"},
		"a provisioner for all nodes needs none of that": {func(n *Node) { *n = Node{} }, ""},
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
