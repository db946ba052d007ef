package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/test/cluster"
	"github.com/holdfast-io/holdfast/test/world"
)

// deployAttachDriver deploys the local driver whose volumes can be attached to either node,
// until the test ends.
func (w *checkpointWorld) deployAttachDriver(t *testing.T) {
	t.Helper()
	programs, err := world.Programs()
	must(t, err)
	w.LoadImage(t, "holdfast.io/local-driver:dev", map[string]string{"/local-driver": filepath.Join(programs, "local-driver")}, driverTools...)
	manifest := filepath.Join("..", "..", "driver", "local", "deploy", "local-driver-attach.yaml")
	w.kubectl(t, "apply", "-f", manifest)
	t.Cleanup(func() { w.kubectl(t, "delete", "-f", manifest, "--wait") })
	for _, workload := range []string{"deploy/local-driver-controller", "daemonset/local-driver-node"} {
		w.kubectl(t, "-n", "holdfast-attach", "rollout", "status", workload, "--timeout="+world.Timeout.String())
	}
}

// testRestoreFromVolume: the volume is mounted where the pod is restored, for as long as that
// takes, and if it is used on the other node the pod says so and waits.
func (w *checkpointWorld) testRestoreFromVolume(t *testing.T) {
	t.Parallel()
	w.deployAttachDriver(t)
	w.create(t, checkpointNamespace, "in-volume", func(s *v1alpha1.CheckpointSpec) {
		s.Target.PodName = "counter"
		s.Storage = &v1alpha1.CheckpointStorage{Backend: v1alpha1.BackendPVC, PVCTemplate: &v1alpha1.PVCTemplate{
			StorageClassName: ptr.To("local-attach"), AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("64Mi")}},
		}}
	})
	c := w.waitReady(t, "in-volume")
	w.waitReleased(t, c.Name)
	w.testRestoreOn(t, w.Nodes[1], "in-volume")
	w.waitUnmounted(t, c.Name)

	w.apply(t, fmt.Sprintf(tenantPod, checkpointNamespace, cluster.BusyboxImage, c.Status.Volume.ClaimName))
	w.kubectl(t, "-n", checkpointNamespace, "wait", "pod/tenant", "--for=condition=Ready", "--timeout="+world.Timeout.String())
	tenant := strings.TrimSpace(w.kubectl(t, "-n", checkpointNamespace, "get", "pod", "tenant", "-o", "jsonpath={.spec.nodeName}"))
	other := w.Nodes[0]
	if other == tenant {
		other = w.Nodes[1]
	}
	w.startCounter(t, "waits", other, "in-volume", corev1.RestartPolicyAlways)
	world.Eventually(t, func(context.Context) error {
		if pod := w.waitRestored(t, "waits", corev1.ConditionFalse, v1alpha1.ReasonVolumePending); !strings.Contains(fmt.Sprint(pod.Status.Conditions), "Multi-Attach error") {
			return fmt.Errorf("the pod does not say that its volume is used on the other node: %+v", pod.Status.Conditions)
		}
		return nil
	})
	w.kubectl(t, "-n", checkpointNamespace, "delete", "pod", "tenant", "--wait")
	w.waitRestored(t, "waits", corev1.ConditionTrue, v1alpha1.ReasonRestored)
	w.waitUnmounted(t, c.Name)
}

// waitUnmounted waits until no pod mounts the volume of a Checkpoint for a restore.
func (w *checkpointWorld) waitUnmounted(t *testing.T, name string) {
	t.Helper()
	c := w.waitStatus(t, client.ObjectKey{Namespace: checkpointNamespace, Name: name}, func(s *v1alpha1.CheckpointStatus) bool { return len(s.RestoreMounts) == 0 })
	left := w.kubectl(t, "-n", checkpointNamespace, "get", "pods", "-l", "checkpoint.example.com/checkpoint-uid="+string(c.UID), "-o", "name")
	if strings.TrimSpace(left) != "" {
		t.Errorf("the volume is not needed any more, and is mounted by %s", left)
	}
}
