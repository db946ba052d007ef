package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/test/world"
)

// The driver runs on one of two nodes; the scheduler would prefer the other one, which
// is less loaded. The driver's capacity is published, so pods whose claims wait for
// the first consumer go where their volumes can be.
func TestOnTwoNodesPodsAreScheduledToTheDriver(t *testing.T) {
	w := deploy(t, deployment{
		nodes: 2, manifest: manifest, driver: "local.holdfast.io", namespace: "holdfast-system", workloads: []string{"deploy/local-driver"},
	})
	for i := range 2 {
		name := fmt.Sprint("data-", i)
		w.CreateClaim(t, name, func(c *corev1.PersistentVolumeClaim) { c.Spec.StorageClassName = ptr.To("local") })
		w.createPod(t, name, name, "echo kept > /data/file; echo written")
		w.waitForPodLog(t, name, "written")
	}
	for i := range 2 {
		name := fmt.Sprint("data-", i)
		volume := w.WaitBound(t, name)
		w.deletePod(t, name)
		w.DeleteClaim(t, name)
		w.WaitPVGone(t, volume)
	}
}

// waitForDriverPod waits until the driver's only pod is ready and is not the previous
// one.
func (w localWorld) waitForDriverPod(t *testing.T, before string) (pod, node string) {
	t.Helper()
	world.Eventually(t, func(ctx context.Context) error {
		pods, err := w.Client.CoreV1().Pods("holdfast-system").List(ctx, metav1.ListOptions{LabelSelector: "app=local-driver"})
		if err != nil {
			return err
		}
		if len(pods.Items) != 1 || pods.Items[0].Name == before {
			return errors.New("the driver has not been replaced yet")
		}
		p := pods.Items[0]
		ready := slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
		})
		if !ready {
			return fmt.Errorf("pod %s is %s", p.Name, p.Status.Phase)
		}
		pod, node = p.Name, p.Spec.NodeName
		return nil
	})
	return pod, node
}

// pinDriver makes the driver run on a node, as its README says; "" allows any node.
func (w localWorld) pinDriver(t *testing.T, node string) {
	t.Helper()
	selector := "null"
	if node != "" {
		selector = fmt.Sprintf(`{"kubernetes.io/hostname":%q}`, node)
	}
	w.kubectl(t, "-n", "holdfast-system", "patch", "deployment", "local-driver", "-p", `{"spec":{"template":{"spec":{"nodeSelector":`+selector+`}}}}`)
}

// A driver whose node is drained returns to it. On another node it deletes no volumes
// of the first one; an event says which node has them. When it is back it completes
// the deletion.
func TestOnTwoNodesDriverDeletesOnlyItsVolumes(t *testing.T) {
	w := deploy(t, deployment{
		nodes: 2, manifest: manifest, driver: "local.holdfast.io", namespace: "holdfast-system", workloads: []string{"deploy/local-driver"},
	})
	pod, home := w.waitForDriverPod(t, "")
	w.CreateClaim(t, "data", func(c *corev1.PersistentVolumeClaim) { c.Spec.StorageClassName = ptr.To("local") })
	w.createPod(t, "writer", "data", "echo kept > /data/file; echo written")
	w.waitForPodLog(t, "writer", "written")
	volume := w.WaitBound(t, "data")
	w.deletePod(t, "writer")

	t.Cleanup(func() { w.uncordon(t, home) })
	w.kubectl(t, "drain", home, "--pod-selector=app=local-driver", "--timeout="+world.Timeout.String())
	pod, node := w.waitForDriverPod(t, pod)
	if node != home {
		t.Fatalf("the driver went from %s to %s", home, node)
	}
	w.uncordon(t, home)

	away := w.Nodes[0]
	if away == home {
		away = w.Nodes[1]
	}
	w.pinDriver(t, away)
	pod, _ = w.waitForDriverPod(t, pod)
	w.DeleteClaim(t, "data")
	w.WaitEvent(t, "PersistentVolume/"+volume.Name, corev1.EventTypeWarning, "VolumeFailedDelete", "on node "+home)
	image := "/var/lib/holdfast/local/volumes/" + volume.Spec.CSI.VolumeHandle + ".img"
	if there := w.Run(t, home, "ls", image); strings.TrimSpace(there) != image {
		t.Errorf("on %s: %s", home, there)
	}
	w.pinDriver(t, home)
	w.waitForDriverPod(t, pod)
	w.WaitPVGone(t, volume)
	if left := w.Run(t, home, "sh", "-c", "ls "+image+" 2>/dev/null || true"); strings.TrimSpace(left) != "" {
		t.Errorf("left on %s: %s", home, left)
	}
}
