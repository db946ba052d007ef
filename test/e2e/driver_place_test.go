package e2e

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// A driver is on one of two nodes, and the scheduler, left to itself, would rather
// have pods on the other, which has less to do. Where the driver has room is published,
// so pods whose claims wait for them go where their volumes can be.
func TestOnTwoNodesPodsGoWhereTheDriverIs(t *testing.T) {
	w := deploy(t, deployment{
		nodes: 2, manifest: manifest, driver: "local.holdfast.io", namespace: "holdfast-system", workloads: []string{"deploy/local-driver"},
	})
	for i := range 2 {
		name := fmt.Sprint("data-", i)
		w.Claim(t, name, func(c *corev1.PersistentVolumeClaim) { c.Spec.StorageClassName = ptr.To("local") })
		w.pod(t, name, name, "echo kept > /data/file; echo written")
		w.says(t, name, "written")
	}
	for i := range 2 {
		name := fmt.Sprint("data-", i)
		volume := w.Bound(t, name)
		w.dropPod(t, name)
		w.DropClaim(t, name)
		w.Gone(t, volume)
	}
}
