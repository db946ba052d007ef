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

// stagingDir is where the kubelet of a node stages the driver's volumes.
const stagingDir = "/var/lib/kubelet/plugins/kubernetes.io/csi/attach.local.holdfast.io"

// A node stops responding while its pods continue, among them the driver's controller.
// An administrator takes it out of service (KEP-2268), and its volume is detached by
// force. As long as the node writes, the next one waits. When the node is really down,
// the pod starts there with all that was written. The old node comes back, finds that
// its volume is gone, cleans up, and can use the volume again.
func TestOnTwoNodesOneDies(t *testing.T) {
	w := newAttachWorld(t)
	w.checkSingleAttachment(t)
	dead := w.controllerNode(t)
	other := w.Nodes[1-slices.Index(w.Nodes, dead)]
	t.Cleanup(func() {
		if t.Failed() { // Otherwise the test has done that.
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
		t.Errorf("of %d lines only %d are left", written, now)
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

// stopKubelet makes the node stop responding, and returns a lower bound for the number
// of lines that its pod has written.
func (w localWorld) stopKubelet(t *testing.T, s *statefulSet, dead, other string) int {
	t.Helper()
	w.Run(t, dead, "sh", "-c", "kill -STOP $(pidof kubelet)")
	w.waitNotReady(t, dead)
	w.kubectl(t, "taint", "node", dead, corev1.TaintNodeOutOfService+"=nodeshutdown:NoExecute")
	w.waitAttachedTo(t, s.volume(t, 0), other)
	w.WaitEvent(t, "Pod/"+s.pod(0), corev1.EventTypeWarning, "FailedMount", "shut down that node")
	before := w.countLines(t, s, dead)
	world.Eventually(t, func(context.Context) error {
		if w.countLines(t, s, dead) <= before {
			return errors.New("the pod on the node that does not respond writes no more, so this test shows nothing")
		}
		return nil
	})
	return w.countLines(t, s, dead)
}

// recoverNode powers the node on and takes it into service. It returns when nothing is
// left on it of the volume, which the other node has.
func (w localWorld) recoverNode(t *testing.T, s *statefulSet, dead, other string) {
	t.Helper()
	w.powerOn(t.Context(), t, dead)
	world.Eventually(t, func(ctx context.Context) error {
		ready, err := w.nodeReady(ctx, dead)
		if err == nil && ready != corev1.ConditionTrue {
			err = fmt.Errorf("condition Ready of node %s is %s", dead, ready)
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

// controllerNode returns the node of the driver's controller.
func (w localWorld) controllerNode(t *testing.T) string {
	t.Helper()
	pods, err := w.Client.CoreV1().Pods("holdfast-attach").List(t.Context(), metav1.ListOptions{LabelSelector: "app=local-driver-controller"})
	if err != nil || len(pods.Items) != 1 {
		t.Fatalf("the driver has %d controllers, %v", len(pods.Items), err)
	}
	return pods.Items[0].Spec.NodeName
}

// countLines returns how many lines the pod has written so far, as seen on a node that
// has mounted the volume.
func (w localWorld) countLines(t *testing.T, s *statefulSet, node string) int {
	t.Helper()
	text := w.Run(t, node, "sh", "-c", "cat /var/lib/kubelet/pods/*/volumes/kubernetes.io~csi/"+s.volume(t, 0)+"/mount/beats | wc -l")
	n, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// notReadyTimeout is how long Kubernetes may take to notice that a node does not
// respond: 50 seconds by default, --node-monitor-grace-period.
const notReadyTimeout = world.Timeout + time.Minute

// waitNotReady waits until Kubernetes has noticed that a node does not respond.
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

// powerOff leaves on a node what a power cut leaves: files, but no processes and
// mounts of pods. The node's own programs, which use no volumes, are stopped instead
// of killed, because they would be restarted.
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
		# A frozen process ends when it is thawed.
		thaw() { grep -rlx FROZEN /sys/fs/cgroup/freezer --include freezer.state | while read -r f; do echo THAWED >"$f" || true; done; }
		for i in 1 2 3; do kill -9 $(others) 2>/dev/null || true; thaw; done
		# The kubelet looks for 3 s at each group that is left, one after the other, when it starts.
		find /sys/fs/cgroup/*/devcluster-*/"$(hostname)"/kubepods -depth -type d -exec rmdir {} ';' 2>/dev/null || true
		while m=$(awk '$2 ~ "^/var/lib/kubelet/" {print $2}' /proc/mounts | tail -n 1) && [ "$m" ]; do umount "$m" || sleep 0.1; done`)
}

// powerOn starts the node's programs from their files.
func (w localWorld) powerOn(ctx context.Context, t *testing.T, node string) {
	t.Helper()
	if _, err := w.TryRun(ctx, node, "sh", "-ec", "kill -9 $(pidof kubelet) $(pidof kube-proxy) $(pidof containerd)"); err != nil {
		t.Error(err)
	}
}
