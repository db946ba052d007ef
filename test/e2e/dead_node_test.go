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

// staged is where the kubelet of a node has the driver's volumes, mounted or not.
const staged = "/var/lib/kubelet/plugins/kubernetes.io/csi/attach.local.holdfast.io"

// A node stops answering while its pods run on, among them the driver's controller.
// An administrator takes it out of service (KEP-2268), and its volume is taken away
// by force. As long as the node writes, the next one waits; when the node has really
// ended, the pod is there with all that was written. The node comes back, finds
// that its volume is gone, lets go of what it had of it, and can have it anew.
func TestOnTwoNodesOneDies(t *testing.T) {
	w := newAttachWorld(t)
	w.oneNodeAtATime(t)
	dead := w.controllerNode(t)
	other := w.Nodes[1-slices.Index(w.Nodes, dead)]
	t.Cleanup(func() {
		if t.Failed() { // Else that has been done.
			w.powerOn(context.Background(), t, dead)
			out, err := w.tryKubectl(context.Background(), "taint", "node", dead, corev1.TaintNodeOutOfService+"-")
			t.Logf("%s %v", out, err)
		}
	})
	s := w.set(t, "survives", corev1.PersistentVolumeFilesystem, nil)
	w.cordon(t, other)
	s.scale(t, 1)
	s.started(t, 0, 1)
	w.uncordon(t, other)

	written := w.hangs(t, s, dead, other)
	w.powerOff(t, dead)
	s.started(t, 0, 2)
	if now := w.beats(t, s, other); now < written {
		t.Errorf("of %d lines %d are there", written, now)
	}
	w.comesBack(t, s, dead, other)
	w.cordon(t, other)
	w.kubectl(t, "-n", w.Namespace, "delete", "pod", s.pod(0))
	s.started(t, 0, 3)
	w.attachedTo(t, s.volume(t, 0), dead)
	w.uncordon(t, other)
	s.drop(t)
	w.nothingShared(t)
}

// hangs has the node no longer answer, and returns how many lines the pod has
// written at least that is still on it.
func (w localWorld) hangs(t *testing.T, s *set, dead, other string) int {
	t.Helper()
	w.Run(t, dead, "sh", "-c", "kill -STOP $(pidof kubelet)")
	w.unready(t, dead)
	w.kubectl(t, "taint", "node", dead, corev1.TaintNodeOutOfService+"=nodeshutdown:NoExecute")
	w.attachedTo(t, s.volume(t, 0), other)
	w.ToldAbout(t, "Pod/"+s.pod(0), corev1.EventTypeWarning, "FailedMount", "end that node")
	before := w.beats(t, s, dead)
	world.Eventually(t, func(context.Context) error {
		if w.beats(t, s, dead) <= before {
			return errors.New("the pod on the node that does not answer writes no more: this test does not show what it should")
		}
		return nil
	})
	return w.beats(t, s, dead)
}

// comesBack brings the node up and into service, and returns when nothing is left
// on it of the volume, which is the other node's.
func (w localWorld) comesBack(t *testing.T, s *set, dead, other string) {
	t.Helper()
	w.powerOn(t.Context(), t, dead)
	world.Eventually(t, func(ctx context.Context) error {
		ready, err := w.ready(ctx, dead)
		if err == nil && ready != corev1.ConditionTrue {
			err = fmt.Errorf("that node %s is ready is %s", dead, ready)
		}
		return err
	})
	world.Eventually(t, func(ctx context.Context) error {
		left, err := w.TryRun(ctx, dead, "sh", "-c", "find "+staged+" -name globalmount; grep globalmount /proc/mounts || true")
		if err == nil && left != "" {
			err = fmt.Errorf("node %s still has %s", dead, left)
		}
		return err
	})
	w.kubectl(t, "taint", "node", dead, corev1.TaintNodeOutOfService+"-")
	w.registered(t, dead)
	w.attachedTo(t, s.volume(t, 0), other)
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

// beats are how many lines the set's pod has written so far, as a node sees it that
// has its volume mounted.
func (w localWorld) beats(t *testing.T, s *set, node string) int {
	t.Helper()
	text := w.Run(t, node, "sh", "-c", "cat /var/lib/kubelet/pods/*/volumes/kubernetes.io~csi/"+s.volume(t, 0)+"/mount/beats | wc -l")
	n, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// gone is how long Kubernetes may take to see that a node does not answer: 50
// seconds by default, --node-monitor-grace-period.
const gone = world.Patience + time.Minute

// unready waits until Kubernetes has seen that a node does not answer.
func (w localWorld) unready(t *testing.T, node string) {
	t.Helper()
	err := wait.PollUntilContextTimeout(t.Context(), world.Pulse, gone, true, func(ctx context.Context) (bool, error) {
		ready, err := w.ready(ctx, node)
		return ready != corev1.ConditionTrue, err
	})
	if err != nil {
		t.Fatalf("waiting until node %s is seen not to answer: %v", node, err)
	}
}

func (w localWorld) ready(ctx context.Context, node string) (corev1.ConditionStatus, error) {
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
