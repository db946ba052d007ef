package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/test/cluster"
	"github.com/holdfast-io/holdfast/test/world"
)

// Where a restore can be held. Others are steps of CRIU, as criu(8) calls them.
const (
	beforeClaim  = "create" // holdfast-runtime is called
	inRootfs     = "rootfs" // it has read half of the changes to the root file system
	afterOutcome = "start"  // the outcome is recorded, and the container is started next
)

// kills are what is killed, and at which step of a restore. The first ones are the sample.
var kills = []struct{ step, victim string }{
	{inRootfs, "agent"},
	{"post-restore", "shim"},
	{"post-resume", "containerd"},
	{"post-restore", "node"},

	{beforeClaim, "agent"}, {"setup-namespaces", "agent"}, {"post-resume", "agent"}, {afterOutcome, "agent"},
	{beforeClaim, "wrapper"}, {inRootfs, "wrapper"}, {"post-restore", "wrapper"}, {"post-resume", "wrapper"}, {afterOutcome, "wrapper"},
	{inRootfs, "worker"}, {"post-restore", "worker"}, {"post-resume", "worker"},
	{"setup-namespaces", "criu"}, {"post-restore", "criu"}, {"post-resume", "criu"},
	{"setup-namespaces", "runc"}, {"post-restore", "runc"}, {"post-resume", "runc"},
	{beforeClaim, "shim"}, {inRootfs, "shim"}, {"setup-namespaces", "shim"}, {"post-resume", "shim"}, {afterOutcome, "shim"},
	{beforeClaim, "containerd"}, {inRootfs, "containerd"}, {"post-restore", "containerd"}, {afterOutcome, "containerd"},
	{beforeClaim, "kubelet"}, {inRootfs, "kubelet"}, {"post-restore", "kubelet"}, {"post-resume", "kubelet"}, {afterOutcome, "kubelet"},
	{beforeClaim, "node"}, {inRootfs, "node"}, {"setup-namespaces", "node"}, {"post-resume", "node"}, {afterOutcome, "node"},
}

// markedPod counts, as counterPod does, and leaves a file on the node whenever it starts
// afresh. %[1]s is its name, %[2]s the image, %[3]s the node and %[4]s the annotations.
const markedPod = `
apiVersion: v1
kind: Pod
metadata: {name: %[1]s, namespace: default, annotations: {%[4]s}}
spec:
  nodeName: %[3]s
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: %[2]s
    command: [sh, -c, "echo >/starts/$(date +%%s); echo written >/written; mkfifo /pipe; exec 3<>/pipe; i=0; while :; do i=$((i+1)); echo $i; read -t 0.1 -u 3 nothing; done"]
    volumeMounts: [{name: starts, mountPath: /starts}]
  volumes: [{name: starts, hostPath: {path: /var/lib/starts/%[1]s, type: DirectoryOrCreate}}]
`

// testKilledRestores: whatever dies at whatever step of a restore, the pod ends restored or
// refused. No two copies of its container ever run, none starts afresh, and nothing is left.
func (w *checkpointWorld) testKilledRestores(t *testing.T) {
	node := w.Nodes[0]
	t.Cleanup(func() {
		_, err := w.TryRun(context.Background(), node, "rm", "-rf", "/var/lib/starts")
		must(t, err)
	})
	w.apply(t, fmt.Sprintf(markedPod, "marked", cluster.BusyboxImage, node, ""))
	w.waitCount(t, "marked", 20)
	w.create(t, checkpointNamespace, "marked", func(s *v1alpha1.CheckpointSpec) { s.Target.PodName = "marked" })
	w.waitReady(t, "marked")
	w.installHold(t, node)
	rows := kills
	if !*full {
		rows = rows[:4]
	}
	for i, row := range rows {
		t.Run(fmt.Sprintf("the %s at %s", row.victim, row.step), func(t *testing.T) {
			k := &killedRestore{checkpointWorld: w, node: node, pod: fmt.Sprint("killed-", i), victim: row.victim}
			k.test(t, row.step)
		})
	}
}

// A killedRestore is one row.
type killedRestore struct {
	*checkpointWorld
	node, pod, victim string
	uid               string
}

func (k *killedRestore) test(t *testing.T, step string) {
	k.hold(t, step)
	k.apply(t, fmt.Sprintf(markedPod, k.pod, cluster.BusyboxImage, k.node, v1alpha1.AnnotationRestoreFrom+": marked"))
	k.uid = k.kubectl(t, "get", "pod", k.pod, "-o", "jsonpath={.metadata.uid}")
	copies := k.watchCopies(t)
	if step == inRootfs {
		k.holdInRootfs(t)
	} else {
		k.waitHeld(t)
	}
	k.kill(t)
	k.release(t)
	end := k.waitDecided(t)
	if end.Status == corev1.ConditionTrue {
		if first := k.waitCount(t, k.pod, 30); first < 20 {
			t.Errorf("the container counts from %d", first)
		}
	}
	if all := copies(); len(all) > 1 {
		t.Errorf("containers ran at the same time: %q", all)
	}
	if starts := k.Run(t, k.node, "ls", "/var/lib/starts/"+k.pod); starts != "" {
		t.Errorf("the container has started afresh: %s", starts)
	}
	k.waitNothingLeft(t)
	t.Logf("the end is %s: %s", end.Reason, end.Message)
}

// waitDecided waits until the pod is restored, or refused for good.
func (k *killedRestore) waitDecided(t *testing.T) (end corev1.PodCondition) {
	t.Helper()
	world.Eventually(t, func(ctx context.Context) error {
		pod, err := k.Client.CoreV1().Pods("default").Get(ctx, k.pod, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, c := range pod.Status.Conditions {
			if c.Type == v1alpha1.PodRestored {
				end = c
			}
		}
		running := len(pod.Status.ContainerStatuses) == 1 && pod.Status.ContainerStatuses[0].State.Running != nil
		if pod.Annotations[v1alpha1.AnnotationObservedRestoreFrom] == "marked" && running == (end.Status == corev1.ConditionTrue) {
			return nil
		}
		return fmt.Errorf("the conditions of pod %s are %+v, its containers are %+v", k.pod, pod.Status.Conditions, pod.Status.ContainerStatuses)
	})
	return end
}

// watchCopies looks which containers of the pod have processes, until the function is called
// that it returns. That returns the most that had at the same time.
func (k *killedRestore) watchCopies(t *testing.T) func() []string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	most := make(chan []string, 1)
	go func() {
		var seen []string
		tick := time.NewTicker(world.PollInterval)
		defer tick.Stop()
		for ctx.Err() == nil {
			if now := counters(k.uid); len(now) > len(seen) {
				seen = now
			}
			<-tick.C
		}
		most <- seen
	}()
	return func() []string {
		cancel()
		return <-most
	}
}

// counters returns the control groups of a pod in which a process counts.
func counters(uid string) []string {
	groups := map[string]bool{}
	files, _ := filepath.Glob("/proc/[0-9]*/cgroup") // The pattern is a good one.
	for _, name := range files {
		group, err := os.ReadFile(name)
		if err != nil || !bytes.Contains(group, []byte(uid)) {
			continue // It has ended, or is another pod's.
		}
		line, err := os.ReadFile(filepath.Join(filepath.Dir(name), "cmdline"))
		if err == nil && bytes.Contains(line, []byte("mkfifo")) {
			first, _, _ := bytes.Cut(group, []byte("\n"))
			groups[string(first)] = true
		}
	}
	return slices.Sorted(maps.Keys(groups))
}

// waitNothingLeft waits until the node has nothing of a restore but what belongs to
// containers. The state that runc keeps of an ended one may stay: containerd forgets a
// container whose shim dies before it is started.
func (k *killedRestore) waitNothingLeft(t *testing.T) {
	t.Helper()
	world.Eventually(t, func(ctx context.Context) error {
		left, err := k.TryRun(ctx, k.node, "sh", "-c", `
			find /var/lib/holdfast/restore -name '*.img' -o -name criu -o -name 'rootfs-diff*'
			grep -E ' /var/lib/holdfast/restore|/criu-root' /proc/mounts
			pgrep -l -x 'criu|holdfast-runtim|oci-runtime'
			cd /run/containerd/runc/k8s.io
			tasks=$(ctr -n k8s.io tasks ls -q)
			for id in *; do case "$tasks" in
				*$id*) ;;
				*) runc --root . state $id | grep -q '"stopped"' || echo container $id ;;
			esac; done`)
		if err == nil && strings.TrimSpace(left) != "" {
			err = fmt.Errorf("the node still has %s", left)
		}
		return err
	})
}

// lostMemory removes what a node without power loses with its memory.
const lostMemory = `
	while m=$(awk '$2 ~ "^/(run/containerd|run/netns|var/lib/holdfast/restore)/" {print $2}' /proc/mounts | tail -n 1) && [ "$m" ]; do umount -l "$m"; done
	rm -rf /run/containerd/* /run/netns/*
`

// kill kills the victim. A node is without power for a moment.
func (k *killedRestore) kill(t *testing.T) {
	t.Helper()
	commands := map[string]string{
		"agent":      "kill -9 " + k.agentPID(t, k.node),
		"wrapper":    "pkill -9 -x 'holdfast-runtim|oci-runtime'",
		"worker":     "pkill -9 -f ^holdfast-runtime-restore",
		"criu":       "pkill -9 -x criu",
		"runc":       "pkill -9 -x runc",
		"shim":       "kill -9 $(ps -o ppid= -p $(pgrep -x 'holdfast-runtim|oci-runtime'))",
		"containerd": "pkill -9 -x containerd",
		"kubelet":    "pkill -9 -x kubelet",
	}
	if k.victim != "node" {
		k.Run(t, k.node, "sh", "-ec", commands[k.victim])
		return
	}
	k.powerOff(t, k.node)
	k.Run(t, k.node, "sh", "-ec", "rm -f /run/restore-hold.*"+lostMemory)
	k.powerOn(t.Context(), t, k.node)
}

// holdScripts are in the place of the OCI runtime, and CRIU's action script. They wait where
// a file says, once, unless their parent ends.
const holdScripts = `cd /usr/local/sbin
cat >restore-hold <<'END'
#!/bin/bash
hold=/run/restore-hold parent=$PPID
step=$(cat $hold.step 2>/dev/null)
pod=$(cat $hold.pod 2>/dev/null)
waits() {
	mv $hold.step $hold.waits 2>/dev/null || return
	while [ -e $hold.waits ]; do
		sleep 0.02
		[ "$(awk '{print $4}' /proc/$$/stat)" = $parent ] || exit 1
	done
}
[ "$CRTOOLS_SCRIPT_ACTION" ] && { [ "$CRTOOLS_SCRIPT_ACTION" = "$step" ] && waits; exit 0; }
spec=/run/containerd/io.containerd.runtime.v2.task/k8s.io/${!#}/config.json
for argument; do
	if [ "$argument" = "$step" ] && grep -q '"io.kubernetes.cri.container-name":"main"' $spec && grep -q "sandbox-name\":\"$pod\"" $spec; then waits; fi
done
exec -a /usr/local/sbin/oci-runtime /usr/local/sbin/holdfast-runtime "$@"
END
chmod 755 restore-hold
ln -s restore-hold new && mv -T new oci-runtime
mkdir -p /etc/criu
echo "action-script /usr/local/sbin/restore-hold" >/etc/criu/runc.conf`

// installHold lets restores on a node be held.
func (w *checkpointWorld) installHold(t *testing.T, node string) {
	t.Helper()
	w.Run(t, node, "sh", "-ec", holdScripts)
	t.Cleanup(func() {
		_, err := w.TryRun(context.Background(), node, "sh", "-ec", `cd /usr/local/sbin
			ln -s holdfast-runtime new && mv -T new oci-runtime && rm restore-hold /etc/criu/runc.conf`)
		must(t, err)
	})
}

// hold lets the restore of the pod wait at a step.
func (k *killedRestore) hold(t *testing.T, step string) {
	t.Helper()
	if step == inRootfs {
		step = beforeClaim
	}
	k.Run(t, k.node, "sh", "-ec", fmt.Sprintf("echo %s >/run/restore-hold.pod; echo %s >/run/restore-hold.step", k.pod, step))
	t.Cleanup(func() { k.release(t) })
}

func (k *killedRestore) release(t *testing.T) {
	t.Helper()
	_, err := k.TryRun(context.Background(), k.node, "sh", "-c", "rm -f /run/restore-hold.*")
	must(t, err)
}

func (k *killedRestore) waitHeld(t *testing.T) {
	t.Helper()
	world.Eventually(t, func(ctx context.Context) error {
		_, err := k.TryRun(ctx, k.node, "test", "-e", "/run/restore-hold.waits")
		return err
	})
}

// holdInRootfs lets the worker read the changes to the root file system from a pipe, half of
// them.
func (k *killedRestore) holdInRootfs(t *testing.T) {
	t.Helper()
	k.waitHeld(t)
	data := "/var/lib/holdfast/restore/" + k.uid + "/main"
	world.Eventually(t, func(ctx context.Context) error {
		_, err := k.TryRun(ctx, k.node, "test", "-e", data+"/ticket.json")
		return err
	})
	k.Run(t, k.node, "bash", "-ec", "cd "+data+`/data
		mv rootfs-diff.tar rootfs-diff.whole
		mkfifo rootfs-diff.tar
		: >/run/restore-hold.half
		(exec 3>rootfs-diff.tar 4<rootfs-diff.whole
			dd bs=700 count=1 <&4 >&3
			: >half
			while [ -e /run/restore-hold.half ]; do sleep 0.02; done
			cat <&4 >&3) >/dev/null 2>&1 </dev/null &
		rm /run/restore-hold.waits
		while ! [ -e half ]; do sleep 0.02; done
		rm half
		mv rootfs-diff.whole rootfs-diff.tar`)
	if _, err := k.TryRun(t.Context(), k.node, "pgrep", "-f", "^holdfast-runtime-restore"); err != nil {
		t.Fatal(errors.Join(errors.New("no process restores"), err))
	}
}
