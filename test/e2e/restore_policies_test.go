package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/test/cluster"
	"github.com/holdfast-io/holdfast/test/world"
)

// copiesOfCounter are pods of all kinds of templates, of which the Deployment has two: %[1]s
// is the Checkpoint, and %[2]s the image.
const copiesOfCounter = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: clones, namespace: default}
spec:
  replicas: 2
  selector: {matchLabels: {copies: deployment}}
  template:
    metadata: {labels: {copies: deployment}, annotations: {checkpoint.example.com/restore-from: %[1]s}}
    spec: &pod
      terminationGracePeriodSeconds: 0
      containers:
      - name: main
        image: %[2]s
        command: [sh, -c, "echo written > /written; i=0; while true; do i=$((i+1)); echo $i; sleep 0.1; done"]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: set, namespace: default}
spec:
  replicas: 1
  selector: {matchLabels: {copies: statefulset}}
  template:
    metadata: {labels: {copies: statefulset}, annotations: {checkpoint.example.com/restore-from: %[1]s}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: main
        image: %[2]s
        command: [sh, -c, "echo written > /written; i=0; while true; do i=$((i+1)); echo $i; sleep 0.1; done"]
---
apiVersion: batch/v1
kind: Job
metadata: {name: job, namespace: default}
spec:
  template:
    metadata: {labels: {copies: job}, annotations: {checkpoint.example.com/restore-from: %[1]s}}
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: 0
      containers:
      - name: main
        image: %[2]s
        command: [sh, -c, "echo written > /written; i=0; while true; do i=$((i+1)); echo $i; sleep 0.1; done"]
`

// restorePolicy is a CheckpointPolicy: %[1]s is its name, and %[2]s what it says of restores.
const restorePolicy = `
apiVersion: checkpoint.example.com/v1alpha1
kind: CheckpointPolicy
metadata: {name: %[1]s}
spec: {storage: {backend: local}, restore: {%[2]s}}
`

// otherCounterPod differs from counterPod in its environment and limits: %[1]s is its name,
// %[2]s the image, %[3]s the node, and %[4]s the Checkpoint.
const otherCounterPod = `
apiVersion: v1
kind: Pod
metadata: {name: %[1]s, namespace: default, annotations: {checkpoint.example.com/restore-from: %[4]s}}
spec:
  nodeName: %[3]s
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: %[2]s
    command: [sh, -c, "echo written > /written; i=0; while true; do i=$((i+1)); echo $i; sleep 0.1; done"]
    env: [{name: LEVEL, value: debug}]
    resources: {limits: {memory: 100Mi}}
`

// testPolicies: what policies say of restores, and beside that pods of templates and data in a
// volume.
func (w *checkpointWorld) testPolicies(t *testing.T) {
	for name, restore := range map[string]string{
		"lenient": "match: Compatible", "fresh": "onFailure: StartFresh", "again": "onFailure: StartFresh, onRestart: Restore",
	} {
		w.createOf(t, "counter", name, restore, nil)
	}
	t.Run("by a policy that repeats a failure", w.testRetry)
	t.Run("at a time", func(t *testing.T) {
		t.Run("of a Deployment, a StatefulSet and a Job", w.testCopies)
		t.Run("with another environment", w.testDifferences)
		t.Run("whenever the container ends", w.testRestoreAgain)
		t.Run("from a volume on another node", w.testRestoreFromVolume)
	})
}

// createOf creates a Checkpoint of a pod with a policy, which both have the same name.
func (w *checkpointWorld) createOf(t *testing.T, pod, name, restore string, storage *v1alpha1.CheckpointStorage) {
	t.Helper()
	w.apply(t, fmt.Sprintf(restorePolicy, name, restore))
	w.create(t, checkpointNamespace, name, func(s *v1alpha1.CheckpointSpec) {
		s.Target.PodName, s.Storage, s.PolicyRef = pod, storage, name
	})
	w.waitReady(t, name)
}

// testCopies: each of the pods starts from the Checkpoint, once.
func (w *checkpointWorld) testCopies(t *testing.T) {
	t.Parallel()
	w.apply(t, fmt.Sprintf(copiesOfCounter, "in-s3", cluster.BusyboxImage))
	var pods []string
	world.Eventually(t, func(ctx context.Context) error {
		all, err := w.Client.CoreV1().Pods("default").List(ctx, metav1.ListOptions{LabelSelector: "copies"})
		if err != nil {
			return err
		}
		pods = nil
		for i := range all.Items {
			pods = append(pods, all.Items[i].Name)
		}
		if len(pods) != 4 {
			return fmt.Errorf("the pods are %v, want 4", pods)
		}
		return nil
	})
	for _, pod := range pods {
		w.waitRestored(t, pod, corev1.ConditionTrue, v1alpha1.ReasonRestored)
		if first := w.waitCount(t, pod, 20); first < 20 {
			t.Errorf("pod %s counts from %d", pod, first)
		}
		w.waitRestarts(t, pod, 0)
	}
}

// testDifferences: a pod that differs is refused by name and starts no container, or goes on
// from the Checkpoint, or starts afresh, as the policy says.
func (w *checkpointWorld) testDifferences(t *testing.T) {
	t.Parallel()
	for _, from := range []string{"local", "lenient", "fresh"} {
		w.apply(t, fmt.Sprintf(otherCounterPod, "differs-"+from, cluster.BusyboxImage, w.Nodes[0], from))
	}
	w.waitRestored(t, "differs-lenient", corev1.ConditionTrue, v1alpha1.ReasonRestored)
	if first := w.waitCount(t, "differs-lenient", 20); first < 20 {
		t.Errorf("a pod that may differ counts from %d", first)
	}
	w.waitRestored(t, "differs-fresh", corev1.ConditionFalse, v1alpha1.ReasonStartedFresh)
	if first := w.waitCount(t, "differs-fresh", 1); first != 1 {
		t.Errorf("a pod that starts afresh counts from %d", first)
	}
	refused := w.waitRestored(t, "differs-local", corev1.ConditionFalse, v1alpha1.ReasonIncompatible)
	if text := fmt.Sprint(refused.Status.Conditions); !strings.Contains(text, "environment variable LEVEL") {
		t.Errorf("the pod does not say what differs: %s", text)
	}
	// The kubelet tries again, and no process is ever started.
	world.Eventually(t, func(ctx context.Context) error {
		events, err := w.Client.CoreV1().Events("default").List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.uid=" + string(refused.UID)})
		if err != nil {
			return err
		}
		failed := int32(0)
		for i := range events.Items {
			switch e := &events.Items[i]; {
			case e.Reason == "Started":
				t.Errorf("a container was started: %s", e.Message)
			case e.Reason == "Failed" && strings.Contains(e.Message, "was not restored from local"):
				failed += max(1, e.Count)
			}
		}
		if failed < 2 {
			return fmt.Errorf("the kubelet has reported %d failures, want that it tries again", failed)
		}
		return nil
	})
	if last := w.pod(t, "differs-local").Status.ContainerStatuses[0].LastTerminationState.Terminated; last == nil || last.Reason != "StartError" {
		t.Errorf("the container was started: %+v", last)
	}
}

// testRetry: without CRIU a restore fails. When it is there again, the next attempt succeeds.
func (w *checkpointWorld) testRetry(t *testing.T) {
	w.createOf(t, "counter", "retry", "onFailure: Retry", w.bucket)
	move := func(from, to string) {
		_, err := w.TryRun(context.Background(), w.Nodes[1], "sh", "-ec", fmt.Sprintf("if test -e %[1]s; then mv %[1]s %[2]s; fi", from, to))
		must(t, err)
	}
	criu := strings.TrimSpace(w.Run(t, w.Nodes[1], "sh", "-c", "command -v criu"))
	t.Cleanup(func() { move(criu+".away", criu) })
	move(criu, criu+".away")
	w.startCounter(t, "tries", w.Nodes[1], "retry", corev1.RestartPolicyAlways)
	world.Eventually(t, func(ctx context.Context) error {
		pod, err := w.Client.CoreV1().Pods("default").Get(ctx, "tries", metav1.GetOptions{})
		if err == nil && !strings.Contains(fmt.Sprint(pod.Status.ContainerStatuses), "criu") {
			err = fmt.Errorf("the pod does not say what is missing: %+v", pod.Status)
		}
		return err
	})
	move(criu+".away", criu)
	w.waitRestored(t, "tries", corev1.ConditionTrue, v1alpha1.ReasonRestored)
	if first := w.waitCount(t, "tries", 20); first < 20 {
		t.Errorf("the pod counts from %d", first)
	}
}

// testRestoreAgain: a container that ends is restored again, until the Checkpoint is deleted:
// the pod says so, and the container starts afresh because the policy permits it.
func (w *checkpointWorld) testRestoreAgain(t *testing.T) {
	t.Parallel()
	w.startCounter(t, "ends", w.Nodes[0], "again", corev1.RestartPolicyAlways)
	w.waitRestored(t, "ends", corev1.ConditionTrue, v1alpha1.ReasonRestored)
	w.waitCount(t, "ends", 20)
	w.kill(t, "ends")
	w.waitRestarts(t, "ends", 1)
	if first := w.waitCount(t, "ends", 20); first < 20 {
		t.Errorf("a container that is restored again counts from %d", first)
	}
	w.deleteCheckpoint(t, "again")
	w.waitRestored(t, "ends", corev1.ConditionFalse, v1alpha1.ReasonCheckpointNotFound)
	w.kill(t, "ends")
	w.waitRestarts(t, "ends", 2)
	if first := w.waitCount(t, "ends", 1); first != 1 {
		t.Errorf("without the Checkpoint the container counts from %d, want 1", first)
	}
}

// kill ends the container of a pod on the first node.
func (w *checkpointWorld) kill(t *testing.T, pod string) {
	t.Helper()
	running := strings.TrimPrefix(w.pod(t, pod).Status.ContainerStatuses[0].ContainerID, "containerd://")
	w.Run(t, w.Nodes[0], "runc", "--root", "/run/containerd/runc/k8s.io", "kill", running, "KILL")
}
