package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/test/world"
)

// otherContainerd is the version of containerd that the test builds. The nodes' Debian has 2.1.
const otherContainerd = "2.4.2"

// testOtherContainerd: a node with another version of containerd restores what was
// checkpointed there and on a node with the usual one, and the other way round. With the flag
// -full, because the programs are built first.
func (w *checkpointWorld) testOtherContainerd(t *testing.T, storage *v1alpha1.CheckpointStorage) {
	usual, other := w.Nodes[1], w.Nodes[0]
	w.replaceContainerd(t, other)
	for name, row := range map[string]struct{ from, to string }{
		"other-in-place": {other, other}, "other-to-usual": {other, usual}, "usual-to-other": {usual, other},
	} {
		t.Run(name, func(t *testing.T) {
			pod := programsPod(name, row.from, "", 64, restorable...)
			w.startPrograms(t, pod)
			w.waitRounds(t, pod, 20)
			w.create(t, checkpointNamespace, name, func(s *v1alpha1.CheckpointSpec) {
				s.Target.PodName, s.Target.ContainerName, s.Storage = name, v1alpha1.AllContainers, storage
			})
			w.waitReady(t, name)
			if row.from == row.to {
				w.kubectl(t, "annotate", "pod", name, v1alpha1.AnnotationRestoreFrom+"="+name)
			} else {
				pod = programsPod(name+"-copy", row.to, name, 64, restorable...)
				w.startPrograms(t, pod)
			}
			w.checkRestoredPrograms(t, pod)
		})
	}
}

// replaceContainerd lets a node run the other version of containerd, as an upgrade does, until
// the test ends. The containers run on.
func (w *checkpointWorld) replaceContainerd(t *testing.T, node string) {
	t.Helper()
	programs := "bin/containerd-" + otherContainerd
	if out, err := exec.CommandContext(t.Context(), "make", "-C", "../..", programs).CombinedOutput(); err != nil {
		t.Fatalf("building containerd %s: %v: %s", otherContainerd, err, out)
	}
	pid, err := os.ReadFile(filepath.Join(filepath.Dir(w.Kubeconfig), "nodes", node, "pid"))
	must(t, err)
	for _, name := range []string{"containerd", "containerd-shim-runc-v2", "ctr"} {
		program, err := os.ReadFile(filepath.Join("../..", programs, name))
		must(t, err)
		must(t, os.WriteFile(filepath.Join("/proc", string(pid), "root/usr/local/bin", name), program, 0o755))
	}
	t.Cleanup(func() {
		_, err := w.TryRun(context.Background(), node, "sh", "-ec", "cd /usr/local/bin; rm containerd containerd-shim-runc-v2 ctr; pkill -9 -x containerd")
		must(t, err)
	})
	// Debian's containerd finds the plugins of CNI elsewhere.
	w.Run(t, node, "sh", "-ec", "mkdir -p /opt/cni && ln -sfn /usr/lib/cni /opt/cni/bin; pkill -9 -x containerd")
	w.waitContainerd(t, node, otherContainerd)
}

// waitContainerd waits until a node is ready, with a version of containerd.
func (w *checkpointWorld) waitContainerd(t *testing.T, node, version string) {
	t.Helper()
	world.Eventually(t, func(ctx context.Context) error {
		n, err := w.Client.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if _, err := w.TryRun(ctx, node, "ctr", "version"); err != nil {
			return err
		}
		now := n.Status.NodeInfo.ContainerRuntimeVersion
		for _, c := range n.Status.Conditions {
			if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue && strings.Contains(now, version) {
				return nil
			}
		}
		return fmt.Errorf("node %s has %s, want %s, and %+v", node, now, version, n.Status.Conditions)
	})
}
