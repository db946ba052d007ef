package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/test/cluster"
	"github.com/holdfast-io/holdfast/test/world"
)

// counterPod counts, in its memory and in its log: %[1]s is its name, %[2]s the image, %[3]s
// the node, %[4]s the annotations and %[5]s the restartPolicy.
const counterPod = `
apiVersion: v1
kind: Pod
metadata: {name: %[1]s, namespace: default, annotations: {%[4]s}}
spec:
  nodeName: %[3]s
  restartPolicy: %[5]s
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: %[2]s
    command: [sh, -c, "echo written > /written; i=0; while true; do i=$((i+1)); echo $i; sleep 0.1; done"]
`

// wrapRuntime puts holdfast-runtime in front of the OCI runtime of a node.
func (w *checkpointWorld) wrapRuntime(t *testing.T, node string) {
	t.Helper()
	programs, err := world.Programs()
	must(t, err)
	pid, err := os.ReadFile(filepath.Join(filepath.Dir(w.Kubeconfig), "nodes", node, "pid"))
	must(t, err)
	program, err := os.ReadFile(filepath.Join(programs, "holdfast-runtime"))
	must(t, err)
	sbin := filepath.Join("/proc", strings.TrimSpace(string(pid)), "root/usr/local/sbin")
	must(t, os.WriteFile(filepath.Join(sbin, "holdfast-runtime"), program, 0o755))
	t.Cleanup(func() {
		_, err := w.TryRun(context.Background(), node, "sh", "-ec", `cd /usr/local/sbin
			ln -s ../../sbin/runc new && mv -T new oci-runtime && rm oci-runtime.json holdfast-runtime
			test -z "$(find /var/lib/holdfast/restore -type f)" || { find /var/lib/holdfast/restore; exit 1; }`)
		must(t, err)
	})
	w.Run(t, node, "sh", "-ec", `cd /usr/local/sbin
		echo '{"runtime": "/usr/sbin/runc", "wait": "30s"}' >oci-runtime.json
		ln -s holdfast-runtime new && mv -T new oci-runtime`)
}

// Pods are restored in place, in new pods and on another node, once, and by name not at all.
func TestOnTwoNodesPodsAreRestored(t *testing.T) {
	w := newCheckpointWorld(t, 2)
	w.loadPrograms(t)
	w.bucket = w.startBucket(t, "4Gi")
	w.startCounter(t, "counter", w.Nodes[0], "", corev1.RestartPolicyAlways)
	w.waitCount(t, "counter", 20)
	w.create(t, checkpointNamespace, "in-s3", func(s *v1alpha1.CheckpointSpec) { s.Target.PodName, s.Storage = "counter", w.bucket })
	w.create(t, checkpointNamespace, "local", func(s *v1alpha1.CheckpointSpec) { s.Target.PodName = "counter" })
	w.waitReady(t, "in-s3")
	w.waitReady(t, "local")
	t.Run("not without the wrapper", w.testRestoreWithoutWrapper)
	for _, node := range w.Nodes {
		w.wrapRuntime(t, node)
	}

	t.Run("side by side", func(t *testing.T) {
		for name, test := range map[string]func(*testing.T){
			"in place":                         w.testRestoreInPlace,
			"in a new pod":                     func(t *testing.T) { w.testRestoreOn(t, w.Nodes[0], "local") },
			"on another node":                  func(t *testing.T) { w.testRestoreOn(t, w.Nodes[1], "in-s3") },
			"programs that check themselves":   func(t *testing.T) { w.testRestoreOfPrograms(t, w.bucket) },
			"a program with a connection":      func(t *testing.T) { w.testRestoreOfConnection(t, w.bucket) },
			"a database":                       func(t *testing.T) { w.testDatabase(t, w.bucket) },
			"not what is only on another node": w.testRestoreOfOtherNode,
			"not what would not start again":   w.testRestoreOfPodWithoutRestart,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				test(t)
			})
		}
	})
	t.Run("by policies", w.testPolicies)
	t.Run("whatever is killed meanwhile", w.testKilledRestores)
	if *full {
		t.Run("with another version of containerd", func(t *testing.T) { w.testOtherContainerd(t, w.bucket) })
	}
}

// testRestoreWithoutWrapper: nothing can hold the container back, so it starts afresh, and the
// pod says so at once.
func (w *checkpointWorld) testRestoreWithoutWrapper(t *testing.T) {
	if shown := w.kubectl(t, "get", "checkpointnode", w.Nodes[0], "-o", "jsonpath={.status.conditions[?(@.type=='CanRestore')].status} {.status.conditions[?(@.type=='CanRestore')].message}"); !strings.HasPrefix(shown, "False no handler of containerd calls holdfast-runtime") {
		t.Errorf("CheckpointNode %s says of restores: %s", w.Nodes[0], shown)
	}
	w.startCounter(t, "unheld", w.Nodes[0], "in-s3", corev1.RestartPolicyAlways)
	pod := w.waitRestored(t, "unheld", corev1.ConditionFalse, v1alpha1.ReasonNoWrapper)
	if text := fmt.Sprint(pod.Status.Conditions); !strings.Contains(text, "the containers start without the state") {
		t.Errorf("the pod does not say what becomes of its containers: %s", text)
	}
	w.waitCount(t, "unheld", 1)
}

// startCounter starts a pod that counts. The annotation may be empty.
func (w *checkpointWorld) startCounter(t *testing.T, name, node, from string, policy corev1.RestartPolicy) {
	t.Helper()
	annotations := ""
	if from != "" {
		annotations = fmt.Sprintf("%s: %s", v1alpha1.AnnotationRestoreFrom, from)
	}
	w.apply(t, fmt.Sprintf(counterPod, name, cluster.BusyboxImage, node, annotations, policy))
	t.Cleanup(func() {
		w.kubectl(t, "delete", "pod", name, "--ignore-not-found", "--wait", "--timeout="+world.Timeout.String())
	})
}

// counts returns the first and the last number that the pod's current container has logged.
func (w *checkpointWorld) counts(ctx context.Context, pod string) (first, last int, err error) {
	log, err := w.Client.CoreV1().Pods("default").GetLogs(pod, &corev1.PodLogOptions{}).DoRaw(ctx)
	if err != nil {
		return 0, 0, err
	}
	lines := strings.Fields(string(log))
	if len(lines) == 0 {
		return 0, 0, fmt.Errorf("pod %s has counted nothing", pod)
	}
	if first, err = strconv.Atoi(lines[0]); err != nil {
		return 0, 0, err
	}
	last, err = strconv.Atoi(lines[len(lines)-1])
	return first, last, err
}

// waitCount waits until a pod has counted to a number, and returns what its container has
// begun with.
func (w *checkpointWorld) waitCount(t *testing.T, pod string, to int) (first int) {
	t.Helper()
	world.Eventually(t, func(ctx context.Context) error {
		var last int
		var err error
		if first, last, err = w.counts(ctx, pod); err != nil {
			return err
		}
		if last < to {
			return fmt.Errorf("pod %s has counted to %d, want %d", pod, last, to)
		}
		return nil
	})
	return first
}

// waitRestored waits for an outcome of the condition Restored, and returns the pod.
func (w *checkpointWorld) waitRestored(t *testing.T, name string, status corev1.ConditionStatus, reason string) *corev1.Pod {
	t.Helper()
	var pod *corev1.Pod
	world.Eventually(t, func(ctx context.Context) error {
		var err error
		if pod, err = w.Client.CoreV1().Pods("default").Get(ctx, name, metav1.GetOptions{}); err != nil {
			return err
		}
		for _, c := range pod.Status.Conditions {
			if c.Type == v1alpha1.PodRestored && c.Status == status && c.Reason == reason {
				return nil
			}
		}
		return fmt.Errorf("the conditions of pod %s are %+v, its containers are %+v", name, pod.Status.Conditions, pod.Status.ContainerStatuses)
	})
	return pod
}

func (w *checkpointWorld) testRestoreInPlace(t *testing.T) {
	before := w.pod(t, "counter")
	_, reached, err := w.counts(t.Context(), "counter")
	must(t, err)
	w.waitCount(t, "counter", reached+100) // The Checkpoints are older.
	w.kubectl(t, "exec", "counter", "--", "sh", "-c", "echo changed > /written")
	w.kubectl(t, "annotate", "pod", "counter", v1alpha1.AnnotationRestoreFrom+"=in-s3")
	after := w.waitRestored(t, "counter", corev1.ConditionTrue, v1alpha1.ReasonRestored)
	if after.UID != before.UID || after.Status.PodIP != before.Status.PodIP {
		t.Errorf("the pod is another one, or has another address: %s %s, was %s %s", after.UID, after.Status.PodIP, before.UID, before.Status.PodIP)
	}
	first := w.waitCount(t, "counter", reached)
	if first < 20 || first > reached+1 {
		t.Errorf("the restored container counts from %d, want what it had reached when it was checkpointed, between 20 and %d", first, reached)
	}
	w.waitRestarts(t, "counter", 1)
	if got := w.kubectl(t, "exec", "counter", "--", "cat", "/written"); strings.TrimSpace(got) != "written" {
		t.Errorf("the file of the container has %q, want that of the checkpoint", got)
	}

	// Once is enough: a container that ends later starts afresh.
	running := strings.TrimPrefix(w.pod(t, "counter").Status.ContainerStatuses[0].ContainerID, "containerd://")
	w.Run(t, w.Nodes[0], "runc", "--root", "/run/containerd/runc/k8s.io", "kill", running, "KILL")
	w.waitRestarts(t, "counter", 2)
	if first := w.waitCount(t, "counter", 1); first != 1 {
		t.Errorf("after another end the container counts from %d, want 1", first)
	}

	// Another value asks again, and one that names nothing does no harm.
	w.kubectl(t, "annotate", "--overwrite", "pod", "counter", v1alpha1.AnnotationRestoreFrom+"=nothing")
	w.waitRestored(t, "counter", corev1.ConditionFalse, v1alpha1.ReasonCheckpointNotFound)
	w.kubectl(t, "annotate", "--overwrite", "pod", "counter", v1alpha1.AnnotationRestoreFrom+"=local")
	w.waitRestored(t, "counter", corev1.ConditionTrue, v1alpha1.ReasonRestored)
	w.waitRestarts(t, "counter", 3)
	if first := w.waitCount(t, "counter", 20); first < 20 {
		t.Errorf("the container that was restored again counts from %d", first)
	}
	w.kubectl(t, "annotate", "pod", "counter", v1alpha1.AnnotationRestoreFrom+"-")
	world.Eventually(t, func(ctx context.Context) error {
		left, err := w.TryRun(ctx, w.Nodes[0], "find", "/var/lib/holdfast/restore", "-path", "*"+string(before.UID)+"*")
		if err == nil && left != "" {
			err = fmt.Errorf("without the annotation the node still has %s", left)
		}
		return err
	})
}

func (w *checkpointWorld) testRestoreOn(t *testing.T, node, from string) {
	name := "copy-of-" + from
	w.startCounter(t, name, node, from, corev1.RestartPolicyAlways)
	pod := w.waitRestored(t, name, corev1.ConditionTrue, v1alpha1.ReasonRestored)
	if said := restoredMessage(pod); !strings.Contains(said, "its memory in RAM") {
		t.Errorf("the condition says %q, and not that the memory was kept in RAM", said)
	}
	if first := w.waitCount(t, name, 30); first < 20 {
		t.Errorf("the new pod counts from %d", first)
	}
	w.waitRestarts(t, name, 0)
	world.Eventually(t, func(ctx context.Context) error {
		data, err := w.TryRun(ctx, node, "find", "/var/lib/holdfast/restore/"+string(w.pod(t, name).UID), "-name", "*.img")
		if err == nil && data != "" {
			err = fmt.Errorf("the node still has the memory of the checkpoint: %s", data)
		}
		if mounts, found := w.TryRun(ctx, node, "cat", "/proc/mounts"); err == nil && (found != nil || strings.Contains(mounts, "holdfast-restore")) {
			err = fmt.Errorf("the node still has RAM for the checkpoint: %w: %s", found, mounts)
		}
		return err
	})
}

// restoredMessage is what the condition Restored of a pod says.
func restoredMessage(pod *corev1.Pod) string {
	for _, c := range pod.Status.Conditions {
		if c.Type == v1alpha1.PodRestored {
			return c.Message
		}
	}
	return ""
}

// testRestoreOfOtherNode: the container does not start, and the pod says why.
func (w *checkpointWorld) testRestoreOfOtherNode(t *testing.T) {
	w.startCounter(t, "far", w.Nodes[1], "local", corev1.RestartPolicyAlways)
	w.waitRestored(t, "far", corev1.ConditionFalse, v1alpha1.ReasonDataElsewhere)
	world.Eventually(t, func(ctx context.Context) error {
		pod, err := w.Client.CoreV1().Pods("default").Get(ctx, "far", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if text := fmt.Sprint(pod.Status.ContainerStatuses); !strings.Contains(text, "was not restored from local") {
			return fmt.Errorf("the containers do not say why they do not start: %s", text)
		}
		return nil
	})
}

// testRestoreOfPodWithoutRestart: the container runs on.
func (w *checkpointWorld) testRestoreOfPodWithoutRestart(t *testing.T) {
	w.startCounter(t, "once", w.Nodes[0], "", corev1.RestartPolicyNever)
	w.waitCount(t, "once", 1)
	w.kubectl(t, "annotate", "pod", "once", v1alpha1.AnnotationRestoreFrom+"=in-s3")
	pod := w.waitRestored(t, "once", corev1.ConditionFalse, v1alpha1.ReasonRestartForbidden)
	if pod.Status.ContainerStatuses[0].State.Running == nil {
		t.Errorf("the container is %+v, want that it runs", pod.Status.ContainerStatuses[0].State)
	}
	w.waitCounting(t, "once")
}

func (w *checkpointWorld) pod(t *testing.T, name string) *corev1.Pod {
	t.Helper()
	pod, err := w.Client.CoreV1().Pods("default").Get(t.Context(), name, metav1.GetOptions{})
	must(t, err)
	return pod
}

func (w *checkpointWorld) waitRestarts(t *testing.T, name string, want int32) {
	t.Helper()
	world.Eventually(t, func(ctx context.Context) error {
		pod, err := w.Client.CoreV1().Pods("default").Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		status := pod.Status.ContainerStatuses
		if len(status) == 0 || status[0].RestartCount != want || status[0].State.Running == nil {
			return fmt.Errorf("the containers of pod %s are %+v, want one that runs after %d restarts", name, status, want)
		}
		return nil
	})
}
