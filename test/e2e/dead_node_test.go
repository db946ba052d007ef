package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/holdfast-io/holdfast/test/world"
)

// stagingDir is where the kubelet of a node has the driver's volumes, mounted or not.
const stagingDir = "/var/lib/kubelet/plugins/kubernetes.io/csi/attach.local.holdfast.io"

// A node stops answering while its pods run on, among them the driver's controller.
// An administrator takes it out of service (KEP-2268), and its volume is taken away
// by force. As long as the node writes, the next one waits; when the node has really
// ended, the pod is there with all that was written. The node comes back, finds
// that its volume is gone, lets go of what it had of it, and can have it anew.
func TestOnTwoNodesOneDies(t *testing.T) {
	w := newAttachWorld(t)
	w.checkSingleAttachment(t)
	dead := w.controllerNode(t)
	other := w.Nodes[1-slices.Index(w.Nodes, dead)]
	t.Cleanup(func() {
		if t.Failed() { // Else that has been done.
			w.powerOn(context.Background(), t, dead)
			out, err := w.tryKubectl(context.Background(), "taint", "node", dead, corev1.TaintNodeOutOfService+"-")
			t.Logf("%s %v", out, err)
		}
	})
	s := w.createSet(t, "survives", corev1.PersistentVolumeFilesystem, nil)
	w.cordon(t, other)
	s.scale(t, 1)
	s.waitStarted(t, 0, 1)
	w.uncordon(t, other)

	written := w.stopKubelet(t, s, dead, other)
	w.powerOff(t, dead)
	s.waitStarted(t, 0, 2)
	if now := w.countLines(t, s, other); now < written {
		t.Errorf("of %d lines %d are there", written, now)
	}
	w.recoverNode(t, s, dead, other)
	w.cordon(t, other)
	w.kubectl(t, "-n", w.Namespace, "delete", "pod", s.pod(0))
	s.waitStarted(t, 0, 3)
	w.waitAttachedTo(t, s.volume(t, 0), dead)
	w.uncordon(t, other)
	s.delete(t)
	w.checkNothingShared(t)
}

// stopKubelet has the node no longer answer, and returns how many lines the pod has
// written at least that is still on it.
func (w localWorld) stopKubelet(t *testing.T, s *statefulSet, dead, other string) int {
	t.Helper()
	w.Run(t, dead, "sh", "-c", "kill -STOP $(pidof kubelet)")
	w.waitNotReady(t, dead)
	w.kubectl(t, "taint", "node", dead, corev1.TaintNodeOutOfService+"=nodeshutdown:NoExecute")
	w.waitAttachedTo(t, s.volume(t, 0), other)
	w.WaitEvent(t, "Pod/"+s.pod(0), corev1.EventTypeWarning, "FailedMount", "end that node")
	before := w.countLines(t, s, dead)
	world.Eventually(t, func(context.Context) error {
		if w.countLines(t, s, dead) <= before {
			return errors.New("the pod on the node that does not answer writes no more: this test does not show what it should")
		}
		return nil
	})
	return w.countLines(t, s, dead)
}

// recoverNode brings the node up and into service, and returns when nothing is left
// on it of the volume, which is the other node's.
func (w localWorld) recoverNode(t *testing.T, s *statefulSet, dead, other string) {
	t.Helper()
	w.powerOn(t.Context(), t, dead)
	world.Eventually(t, func(ctx context.Context) error {
		ready, err := w.nodeReady(ctx, dead)
		if err == nil && ready != corev1.ConditionTrue {
			err = fmt.Errorf("that node %s is ready is %s", dead, ready)
		}
		return err
	})
	world.Eventually(t, func(ctx context.Context) error {
		left, err := w.TryRun(ctx, dead, "sh", "-c", "find "+stagingDir+" -name globalmount; grep globalmount /proc/mounts || true")
		if err == nil && left != "" {
			err = fmt.Errorf("node %s still has %s", dead, left)
		}
		return err
	})
	w.kubectl(t, "taint", "node", dead, corev1.TaintNodeOutOfService+"-")
	w.waitRegistered(t, dead)
	w.waitAttachedTo(t, s.volume(t, 0), other)
}

// controllerNode is where the driver's controller is.
func (w localWorld) controllerNode(t *testing.T) string {
	t.Helper()
	pods, err := w.Client.CoreV1().Pods("holdfast-attach").List(t.Context(), metav1.ListOptions{LabelSelector: "app=local-driver-controller"})
	if err != nil || len(pods.Items) != 1 {
		t.Fatalf("the driver has %d controllers, %v", len(pods.Items), err)
	}
	return pods.Items[0].Spec.NodeName
}

// countLines are how many lines the set's pod has written so far, as a node sees it that
// has its volume mounted.
func (w localWorld) countLines(t *testing.T, s *statefulSet, node string) int {
	t.Helper()
	text := w.Run(t, node, "sh", "-c", "cat /var/lib/kubelet/pods/*/volumes/kubernetes.io~csi/"+s.volume(t, 0)+"/mount/beats | wc -l")
	n, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// notReadyTimeout is how long Kubernetes may take to see that a node does not answer: 50
// seconds by default, --node-monitor-grace-period.
const notReadyTimeout = world.Timeout + time.Minute

// waitNotReady waits until Kubernetes has seen that a node does not answer.
func (w localWorld) waitNotReady(t *testing.T, node string) {
	t.Helper()
	err := wait.PollUntilContextTimeout(t.Context(), world.PollInterval, notReadyTimeout, true, func(ctx context.Context) (bool, error) {
		ready, err := w.nodeReady(ctx, node)
		return ready != corev1.ConditionTrue, err
	})
	if err != nil {
		t.Fatalf("waiting until node %s is seen not to answer: %v", node, err)
	}
}

func (w localWorld) nodeReady(ctx context.Context, node string) (corev1.ConditionStatus, error) {
	n, err := w.Client.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	for _, condition := range n.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			return condition.Status, nil
		}
	}
	return "", fmt.Errorf("node %s does not say whether it is ready", node)
}

// powerOff leaves of a node what a power cut does: files, and nothing that runs or
// is mounted for pods. The node's own programs, which hold nothing of a volume, are
// stopped instead of ended, because they would be started again.
func (w localWorld) powerOff(t *testing.T, node string) {
	t.Helper()
	w.Run(t, node, "sh", "-ec", `
		kill -STOP $(pidof kubelet) $(pidof kube-proxy) $(pidof containerd)
		others() {
			for p in /proc/[0-9]*; do
				case "${p#/proc/} $(cat $p/comm 2>/dev/null)" in
				"1 "*|"$$ "*|*" kubelet"|*" kube-proxy"|*" containerd"|*" ") ;;
				*) echo ${p#/proc/} ;;
				esac
			done
		}
		for i in 1 2 3; do kill -9 $(others) 2>/dev/null || true; done
		while m=$(awk '$2 ~ "^/var/lib/kubelet/" {print $2}' /proc/mounts | tail -n 1) && [ "$m" ]; do umount "$m" || sleep 0.1; done`)
}

// powerOn starts the node's programs from their files.
func (w localWorld) powerOn(ctx context.Context, t *testing.T, node string) {
	t.Helper()
	if _, err := w.TryRun(ctx, node, "sh", "-ec", "kill -9 $(pidof kubelet) $(pidof kube-proxy) $(pidof containerd)"); err != nil {
		t.Error(err)
	}
}
