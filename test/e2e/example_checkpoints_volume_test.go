package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/test/cluster"
	"github.com/holdfast-io/holdfast/test/world"
)

// defaultClass is the class of claims that name none, as those of the example's policy.
const defaultClass = `
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: checkpoints, annotations: {storageclass.kubernetes.io/is-default-class: "true"}}
provisioner: local.holdfast.io
volumeBindingMode: WaitForFirstConsumer
allowVolumeExpansion: true
`

// tenantPod is a pod of a user that mounts a claim.
const tenantPod = `
apiVersion: v1
kind: Pod
metadata: {name: tenant, namespace: %[1]s}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {name: look, image: %[2]s, command: [sleep, "100000"], volumeMounts: [{name: data, mountPath: /data}]}
  volumes: [{name: data, persistentVolumeClaim: {claimName: %[3]s}}]
`

// apply applies a manifest until the test ends.
func (w *checkpointWorld) apply(t *testing.T, manifest string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "manifest.yaml")
	must(t, os.WriteFile(file, []byte(manifest), 0o600))
	w.kubectl(t, "apply", "-f", file)
	t.Cleanup(func() {
		w.kubectl(t, "delete", "-f", file, "--wait", "--ignore-not-found", "--timeout="+world.Timeout.String())
	})
}

// testVolumes: the storage of the example's policy, a volume for each Checkpoint, and then
// the same claim as that of another Checkpoint, as if a user had created it. The volume can
// be expanded.
func (w *checkpointWorld) testVolumes(t *testing.T) {
	w.deployLocalDriver(t)
	w.apply(t, defaultClass)
	example, err := os.ReadFile(filepath.Join("..", "..", "examples", "checkpoints", "volume.yaml"))
	must(t, err)
	w.apply(t, string(example))
	c := w.waitReady(t, "my-app-volume")
	claim := w.checkOwnClaim(t, c)
	w.waitReleased(t, c.Name)

	w.kubectl(t, "-n", checkpointNamespace, "patch", "pvc", claim.Name, "--type=merge", "-p", `{"spec":{"resources":{"requests":{"storage":"11Gi"}}}}`)
	w.kubectl(t, "-n", checkpointNamespace, "wait", "pvc/"+claim.Name, "--for=condition=FileSystemResizePending", "--timeout="+world.Timeout.String())
	w.apply(t, fmt.Sprintf(tenantPod, checkpointNamespace, cluster.BusyboxImage, claim.Name))
	w.kubectl(t, "-n", checkpointNamespace, "wait", "pod/tenant", "--for=condition=Ready", "--timeout="+world.Timeout.String())
	world.Eventually(t, func(ctx context.Context) error {
		now, err := w.Client.CoreV1().PersistentVolumeClaims(checkpointNamespace).Get(ctx, claim.Name, metav1.GetOptions{})
		if err == nil && now.Status.Capacity.Storage().String() != "11Gi" {
			err = fmt.Errorf("the status of the claim is %+v", now.Status)
		}
		return err
	})
	w.checkInVolume(t, c)
	w.create(t, checkpointNamespace, "in-a-claim", func(s *v1alpha1.CheckpointSpec) {
		s.Storage = &v1alpha1.CheckpointStorage{Backend: v1alpha1.BackendPVC, PVC: &v1alpha1.PVCStorage{ClaimName: claim.Name}}
	})
	other := w.waitReady(t, "in-a-claim")
	w.checkInVolume(t, other)
	w.waitReleased(t, other.Name)
	w.deleteCheckpoint(t, other.Name)
	if got, want := w.tenant(t, "sh", "-c", "find /data -name '*.ckpt'"), "/data/"+string(c.UID)+"/main.ckpt"; strings.TrimSpace(got) != want {
		t.Errorf("after the deletion of Checkpoint %s the volume has %q, want %q", other.UID, got, want)
	}

	w.kubectl(t, "-n", checkpointNamespace, "delete", "pod", "tenant", "--wait")
	w.deleteCheckpoint(t, c.Name)
	if _, err := w.Client.CoreV1().PersistentVolumeClaims(checkpointNamespace).Get(t.Context(), claim.Name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the claim of a deleted Checkpoint: %v", err)
	}
	world.Eventually(t, func(ctx context.Context) error {
		_, err := w.Client.CoreV1().PersistentVolumes().Get(ctx, claim.Spec.VolumeName, metav1.GetOptions{})
		if !apierrors.IsNotFound(err) {
			return fmt.Errorf("the volume of a deleted Checkpoint: %w", err)
		}
		return nil
	})
}

// deployLocalDriver deploys the local driver until the test ends.
func (w *checkpointWorld) deployLocalDriver(t *testing.T) {
	t.Helper()
	programs, err := world.Programs()
	must(t, err)
	w.LoadImage(t, "holdfast.io/local-driver:dev", map[string]string{"/local-driver": filepath.Join(programs, "local-driver")}, driverTools...)
	w.kubectl(t, "apply", "-f", manifest)
	t.Cleanup(func() { w.kubectl(t, "delete", "-f", manifest, "--wait") })
	w.kubectl(t, "-n", "holdfast-system", "rollout", "status", "deploy/local-driver", "--timeout="+world.Timeout.String())
}

// checkOwnClaim checks that the claim of a Checkpoint is that of the policy's template.
func (w *checkpointWorld) checkOwnClaim(t *testing.T, c *v1alpha1.Checkpoint) *corev1.PersistentVolumeClaim {
	t.Helper()
	name := "checkpoint-" + string(c.UID)
	claim, err := w.Client.CoreV1().PersistentVolumeClaims(c.Namespace).Get(t.Context(), name, metav1.GetOptions{})
	must(t, err)
	if size := claim.Spec.Resources.Requests[corev1.ResourceStorage]; size.String() != "10Gi" || !metav1.IsControlledBy(claim, c) {
		t.Errorf("the claim is %+v", claim)
	}
	if got, want := c.Status.Containers[0].Location, fmt.Sprintf("pvc:%s/%s/main.ckpt", name, c.UID); got != want {
		t.Errorf("the location is %s, want %s", got, want)
	}
	return claim
}

// waitReleased waits until the pod that mounted the volume of a Checkpoint is gone.
func (w *checkpointWorld) waitReleased(t *testing.T, name string) {
	t.Helper()
	c := w.waitStatus(t, client.ObjectKey{Namespace: checkpointNamespace, Name: name}, func(s *v1alpha1.CheckpointStatus) bool { return s.Volume.PodName == "" })
	if _, err := w.Client.CoreV1().Pods(checkpointNamespace).Get(t.Context(), "checkpoint-"+string(c.UID), metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the pod of a Checkpoint that is ready: %v", err)
	}
}

// tenant runs a command in the pod of a user that mounts the claim.
func (w *checkpointWorld) tenant(t *testing.T, command ...string) string {
	t.Helper()
	return w.kubectl(t, append([]string{"-n", checkpointNamespace, "exec", "tenant", "--"}, command...)...)
}

// checkInVolume checks the archive of a Checkpoint in the mounted claim.
func (w *checkpointWorld) checkInVolume(t *testing.T, c *v1alpha1.Checkpoint) {
	t.Helper()
	path := "/data/" + string(c.UID) + "/main.ckpt"
	if got := strings.TrimSpace(w.tenant(t, "stat", "-c", "%a %u", path)); got != "600 0" {
		t.Errorf("mode and owner of the archive are %q", got)
	}
	copied := filepath.Join(t.TempDir(), "main.ckpt")
	must(t, os.WriteFile(copied, []byte(w.tenant(t, "cat", path)), 0o600))
	programs, err := world.Programs()
	must(t, err)
	out, err := exec.CommandContext(t.Context(), filepath.Join(programs, "holdfast"), "archive", "verify", copied).CombinedOutput()
	if err != nil || !strings.Contains(string(out), c.Status.Containers[0].Digest) {
		t.Errorf("verifying the archive with digest %s: %v: %s", c.Status.Containers[0].Digest, err, out)
	}
}

// deleteCheckpoint deletes a Checkpoint and waits until it is gone.
func (w *checkpointWorld) deleteCheckpoint(t *testing.T, name string) {
	t.Helper()
	w.kubectl(t, "-n", checkpointNamespace, "delete", "checkpoint", name, "--wait", "--timeout="+world.Timeout.String())
	if err := w.api.Get(t.Context(), client.ObjectKey{Namespace: checkpointNamespace, Name: name}, &v1alpha1.Checkpoint{}); !apierrors.IsNotFound(err) {
		t.Error(errors.Join(fmt.Errorf("Checkpoint %s exists after its deletion", name), err))
	}
}
