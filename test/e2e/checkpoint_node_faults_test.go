package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/test/cluster"
	"github.com/holdfast-io/holdfast/test/world"
)

// largePod counts, and has 400 MiB of memory that do not compress, for which a checkpoint
// takes seconds: dd waits for its pipe. It counts when the memory is there.
const largePod = `
apiVersion: v1
kind: Pod
metadata: {name: large, namespace: default}
spec:
  nodeName: %[2]s
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: %[1]s
    command: [sh, -c, "dd if=/dev/urandom bs=400M count=1 iflag=fullblock | (head -c 1 >/dev/null; i=0; while true; do i=$((i+1)); echo $i; sleep 0.1; done)"]
`

// Whatever happens to the node: the container goes on, the Checkpoint ends, and nothing is
// left on the node.
func TestOnTwoNodesCheckpointsSurviveFaults(t *testing.T) {
	w := newCheckpointWorld(t, 2)
	node := w.Nodes[0]
	w.limitDisk(t, node)
	w.apply(t, fmt.Sprintf(largePod, cluster.BusyboxImage, node))
	w.waitCounting(t, "large")
	t.Run("the disk is full", func(t *testing.T) { w.testFullDisk(t, node) })
	t.Run("the agent needs little memory", func(t *testing.T) { w.testAgentMemory(t, node) })
	for _, engine := range []string{"runc", "kubelet"} {
		w.setEngine(t, engine)
		t.Run(engine+", the agent does not reach the API server", func(t *testing.T) { w.testNoAPIServer(t, node) })
		t.Run(engine+", a power cut during the dump", func(t *testing.T) { w.testPowerCut(t, node, isAttempted) })
	}
	t.Run("a power cut while the dump is stored", func(t *testing.T) { w.testPowerCut(t, node, isDumped) })
}

// limitDisk gives the agent of a node a small file system of its own.
func (w *checkpointWorld) limitDisk(t *testing.T, node string) {
	t.Helper()
	w.Run(t, node, "sh", "-ec", `
		truncate --size=1G /var/lib/holdfast.img
		mkfs.ext4 -q /var/lib/holdfast.img
		mount -o loop /var/lib/holdfast.img /var/lib/holdfast`)
	t.Cleanup(func() { // The agent may have it open until it ends.
		_, err := w.TryRun(context.Background(), node, "sh", "-ec", "umount --lazy /var/lib/holdfast; rm /var/lib/holdfast.img")
		must(t, err)
	})
	w.restartAgents(t)
}

// restartAgents replaces the pods of the agent.
func (w *checkpointWorld) restartAgents(t *testing.T) {
	t.Helper()
	w.kubectl(t, "-n", checkpointNamespace, "rollout", "restart", "daemonset/checkpoint-agent")
	w.waitAgents(t)
}

func (w *checkpointWorld) waitAgents(t *testing.T) {
	t.Helper()
	w.kubectl(t, "-n", checkpointNamespace, "rollout", "status", "daemonset/checkpoint-agent", "--timeout="+world.Timeout.String())
	w.kubectl(t, "wait", "checkpointnodes", "--all", "--for=condition=Ready", "--timeout="+world.Timeout.String())
}

// setEngine has the agents use one engine only.
func (w *checkpointWorld) setEngine(t *testing.T, engine string) {
	t.Helper()
	w.kubectl(t, "-n", checkpointNamespace, "patch", "daemonset", "checkpoint-agent", "--type=json", "-p",
		fmt.Sprintf(`[{"op": "replace", "path": "/spec/template/spec/containers/0/args", "value": ["--host-root=/host", "--engines=%s"]}]`, engine))
	w.waitAgents(t)
}

func (w *checkpointWorld) createOfLarge(t *testing.T, name string) client.ObjectKey {
	t.Helper()
	w.create(t, checkpointNamespace, name, func(s *v1alpha1.CheckpointSpec) { s.Target.PodName = "large" })
	return client.ObjectKey{Namespace: checkpointNamespace, Name: name}
}

// testFullDisk: the Checkpoint waits for room, and the container is not frozen meanwhile.
func (w *checkpointWorld) testFullDisk(t *testing.T, node string) {
	empty := func(ctx context.Context) {
		_, err := w.TryRun(ctx, node, "rm", "-f", "/var/lib/holdfast/filling")
		must(t, err)
	}
	t.Cleanup(func() { empty(context.Background()) })
	// The store would take more, but the engine wants 64 MiB for what is not the memory.
	w.Run(t, node, "sh", "-c", "cd /var/lib/holdfast; dd if=/dev/zero of=filling bs=1M 2>/dev/null; truncate -s -32M filling")
	key := w.createOfLarge(t, "full-disk")
	c := w.waitStatus(t, key, func(s *v1alpha1.CheckpointStatus) bool {
		ready := meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionReady)
		return ready != nil && ready.Reason == "InsufficientNodeDisk"
	})
	if c.Status.Attempts != 0 || c.Status.NextAttemptTime == nil || c.Status.WaitingFor != v1alpha1.WaitingForNode {
		t.Errorf("the status is %+v, want another attempt, and none so far", c.Status)
	}
	empty(t.Context())
	w.checkStored(t, w.waitReady(t, key.Name))
	w.waitNothingLeft(t, key.Name, node)
}

// testAgentMemory: an upload does not take more memory for a larger container.
func (w *checkpointWorld) testAgentMemory(t *testing.T, node string) {
	storage := w.startBucket(t, "1Gi")
	w.create(t, checkpointNamespace, "large-in-a-bucket", func(s *v1alpha1.CheckpointSpec) {
		s.Target.PodName, s.Storage = "large", storage
	})
	w.waitReady(t, "large-in-a-bucket")
	w.waitNothingLeft(t, "large-in-a-bucket", node)
	const most = 64 << 10 // KiB
	var peak int
	status := w.Run(t, node, "cat", "/proc/"+w.agentPID(t, node)+"/status")
	_, rest, _ := strings.Cut(status, "VmHWM:")
	if _, err := fmt.Sscan(rest, &peak); err != nil || peak > most {
		t.Errorf("the agent had up to %d KiB in RAM, %v, want %d: %s", peak, err, most, status)
	}
	t.Logf("the agent had up to %d KiB in RAM", peak)
}

// testNoAPIServer: the container goes on, and what was dumped is stored when the API server
// can be reached again. The container is not frozen a second time.
func (w *checkpointWorld) testNoAPIServer(t *testing.T, node string) {
	key := w.createOfLarge(t, "no-api-server")
	w.waitStatus(t, key, isAttempted)
	agent := w.agentPID(t, node)
	connect := func(action string) {
		_, err := w.TryRun(context.Background(), node, "nsenter", "--target", agent, "--net",
			"iptables", action, "OUTPUT", "-p", "tcp", "-d", "10.96.0.1", "-j", "REJECT", "--reject-with", "tcp-reset")
		must(t, err)
	}
	connect("-A")
	reconnect := sync.OnceFunc(func() { connect("-D") })
	t.Cleanup(reconnect)
	c := &v1alpha1.Checkpoint{}
	must(t, w.api.Get(t.Context(), key, c))
	if isEnded(&c.Status) {
		t.Fatal("the Checkpoint ended before the network was cut, so this test shows nothing")
	}
	w.waitCounting(t, "large")
	w.waitAgentLog(t, node, "connection refused")
	reconnect()
	after := w.waitReady(t, key.Name)
	if after.Status.Attempts != 1 {
		t.Errorf("there were %d attempts, want one", after.Status.Attempts)
	}
	w.checkStored(t, after)
	w.waitNothingLeft(t, key.Name, node)
}

// waitAgentLog waits until the agent of a node has logged a text.
func (w *checkpointWorld) waitAgentLog(t *testing.T, node, text string) {
	t.Helper()
	agent := w.kubectl(t, "-n", checkpointNamespace, "get", "pod", "-l", "app=checkpoint-agent", "--field-selector=spec.nodeName="+node, "-o", "name")
	world.Eventually(t, func(context.Context) error {
		if !strings.Contains(w.kubectl(t, "-n", checkpointNamespace, "logs", strings.TrimSpace(agent)), text) {
			return fmt.Errorf("the agent of node %s has not logged %q", node, text)
		}
		return nil
	})
}

// agentPID returns the number of the agent's process on a node.
func (w *checkpointWorld) agentPID(t *testing.T, node string) string {
	t.Helper()
	return strings.TrimSpace(w.Run(t, node, "sh", "-c", `
		for p in /proc/[0-9]*; do
			case "$(tr '\0' ' ' <$p/cmdline 2>/dev/null)" in
			"/holdfast node --host-root"*) echo "${p#/proc/}"; exit ;;
			esac
		done
		echo "there is no agent" >&2
		exit 1`))
}

// testPowerCut: the container starts anew when the power is back, and the Checkpoint ends.
func (w *checkpointWorld) testPowerCut(t *testing.T, node string, moment func(*v1alpha1.CheckpointStatus) bool) {
	key := w.createOfLarge(t, "power-cut")
	w.waitStatus(t, key, moment)
	restarts := w.restartsOfLarge(t)
	w.powerOff(t, node)
	w.Run(t, node, "sh", "-ec", `awk '$2 ~ "^/var/lib/holdfast/node/" {print $2}' /proc/mounts | xargs -r umount`)
	w.powerOn(t.Context(), t, node)
	world.Eventually(t, func(context.Context) error {
		if w.restartsOfLarge(t) == restarts {
			return errors.New("the container has not started again")
		}
		return nil
	})
	w.waitCounting(t, "large")
	c := w.waitStatus(t, key, isEnded)
	if meta.IsStatusConditionTrue(c.Status.Conditions, v1alpha1.ConditionReady) {
		w.checkStored(t, c)
	}
	t.Logf("after %d attempts: %+v", c.Status.Attempts, c.Status.Conditions)
	w.waitNothingLeft(t, key.Name, node)
}

func (w *checkpointWorld) restartsOfLarge(t *testing.T) string {
	t.Helper()
	return w.kubectl(t, "get", "pod", "large", "-o", "jsonpath={.status.containerStatuses[0].restartCount}")
}

func isAttempted(s *v1alpha1.CheckpointStatus) bool { return s.Attempts > 0 }

func isDumped(s *v1alpha1.CheckpointStatus) bool { return s.CheckpointTime != nil }

func isEnded(s *v1alpha1.CheckpointStatus) bool {
	return meta.IsStatusConditionTrue(s.Conditions, v1alpha1.ConditionReady) || meta.IsStatusConditionTrue(s.Conditions, v1alpha1.ConditionFailed)
}

// waitNothingLeft deletes a Checkpoint and waits until the node has nothing of it.
func (w *checkpointWorld) waitNothingLeft(t *testing.T, name, node string) {
	t.Helper()
	w.deleteCheckpoint(t, name)
	world.Eventually(t, func(ctx context.Context) error {
		left, err := w.TryRun(ctx, node, "sh", "-c", `cd /var/lib/holdfast; find . -type f ! -name agent.lock ! -name kubelet-certificate
			find /var/lib/kubelet/checkpoints -type f
			grep ' /var/lib/holdfast/node/' /proc/mounts
			grep -rlx FROZEN /sys/fs/cgroup/freezer --include freezer.state; true`)
		if err == nil && strings.TrimSpace(left) != "" {
			err = fmt.Errorf("the node still has %s", left)
		}
		return err
	})
}

// waitCounting waits until a pod goes on counting.
func (w *checkpointWorld) waitCounting(t *testing.T, pod string) {
	t.Helper()
	count := func(ctx context.Context) (string, error) {
		log, err := w.Client.CoreV1().Pods("default").GetLogs(pod, &corev1.PodLogOptions{TailLines: ptr.To(int64(1))}).DoRaw(ctx)
		return string(log), err
	}
	before := ""
	world.Eventually(t, func(ctx context.Context) error {
		now, err := count(ctx)
		if err == nil && (before == "" || now == before) {
			before, err = now, fmt.Errorf("the container of pod %s does not run", pod)
		}
		return err
	})
}
