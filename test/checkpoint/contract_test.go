package checkpoint

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-io/holdfast/internal/runtime"
	"github.com/holdfast-io/holdfast/internal/runtime/freezer"
	"github.com/holdfast-io/holdfast/internal/runtime/runc"
	"github.com/holdfast-io/holdfast/internal/runtime/runtimetest"
	"github.com/holdfast-io/holdfast/test/cluster"
)

// wrapper is in the place of runc for the containers of a test. It lets a dump wait or fail
// when CRIU would begin, that is when all containers are frozen. %s is its directory.
const wrapper = `#!/bin/sh
for id; do :; done
case " $* " in *" checkpoint "*) ;; *) exec runc "$@" ;; esac
for argument; do
	case $previous in --work-path) work=$argument ;; --image-path) images=$argument ;; esac
	previous=$argument
done
cd %s || exit 1
# As the engine's action script, which finds the gate open afterwards.
echo > "$work/gate-ready"
read -r line < "$work/gate-open"
while read -r name freezer; do
	if [ "$(cat "$freezer")" = FROZEN ]; then echo "freeze $name"; fi
done < containers >> events
echo "dump $(cat "$id")" >> events
if mv "$id.fail" "$id.failed" 2>/dev/null; then echo half > "$images/pages-1.img"; exit 1; fi
if mv "$id.hold" "$id.held" 2>/dev/null; then while [ -e "$id.held" ]; do sleep 0.05; done; fi
echo > "$work/gate-open"
exec runc "$@"
`

// A contractNode is a real node as [runtimetest] uses one.
type contractNode struct {
	*node
	t   *testing.T
	dir string // of the wrapper, on the node
	mu  sync.Mutex
}

func newContractNode(t *testing.T) *contractNode {
	t.Helper()
	n := &contractNode{t: t, node: newNode(t, func(c *runc.Config) { c.MaxDumps = 4 })}
	n.dir = "/run/wrapper-" + n.Namespace
	if err := os.Mkdir(n.path(n.dir), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(n.path(n.dir)) })
	t.Cleanup(func() { // Rows leave complete checkpoints.
		found, err := n.Engine().Recover(context.WithoutCancel(t.Context()))
		if err != nil {
			t.Error(err)
		}
		for _, dumps := range found {
			for _, d := range dumps {
				if err := d.Discard(); err != nil {
					t.Error(err)
				}
			}
		}
	})
	n.write("runc", fmt.Sprintf(wrapper, n.dir), 0o700)
	return n
}

func (n *contractNode) write(name, text string, mode os.FileMode) {
	n.t.Helper()
	if err := os.WriteFile(filepath.Join(n.path(n.dir), name), []byte(text), mode); err != nil {
		n.t.Error(err)
	}
}

func (n *contractNode) Engine() runtime.Engine {
	engine, err := runc.New(n.config)
	if err != nil {
		n.t.Error(err)
	}
	return engine
}

// Start starts a pod with three containers, and returns one of them.
func (n *contractNode) Start(pod, name string) runtime.Container {
	n.t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	_, err := n.Client.CoreV1().Pods(n.Namespace).Get(n.t.Context(), pod, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		err = n.startPod(pod)
	}
	if err != nil {
		n.t.Error(err)
	}
	return n.container(pod, name)
}

func (n *contractNode) startPod(name string) error {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}}
	zero := int64(0)
	pod.Spec.NodeName, pod.Spec.RestartPolicy, pod.Spec.TerminationGracePeriodSeconds = n.name, corev1.RestartPolicyNever, &zero
	for _, container := range []string{"main", "sidecar", "log"} {
		// CRIU has a sleep end early: the program must begin another one.
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{
			Name: container, Image: cluster.BusyboxImage, Command: []string{"sh", "-c", "while true; do sleep 1; done"},
		})
	}
	pods := n.Client.CoreV1().Pods(n.Namespace)
	if _, err := pods.Create(n.t.Context(), pod, metav1.CreateOptions{}); err != nil {
		return err
	}
	waitFor(n.t, "pod "+name+" runs", func(ctx context.Context) (bool, error) {
		got, err := pods.Get(ctx, name, metav1.GetOptions{})
		return err == nil && got.Status.Phase == corev1.PodRunning && len(got.Status.ContainerStatuses) == 3 &&
			!slices.ContainsFunc(got.Status.ContainerStatuses, func(c corev1.ContainerStatus) bool { return c.State.Running == nil }), err
	})
	return nil
}

// container returns a container of a pod, for which the engine calls the wrapper from now on.
func (n *contractNode) container(pod, name string) runtime.Container {
	n.t.Helper()
	got, err := n.Client.CoreV1().Pods(n.Namespace).Get(n.t.Context(), pod, metav1.GetOptions{})
	if err != nil {
		n.t.Fatal(err)
	}
	c := runtime.Container{Namespace: n.Namespace, Pod: pod, PodUID: string(got.UID), Name: name}
	for _, status := range got.Status.ContainerStatuses {
		if status.Name == name {
			_, c.ID, _ = strings.Cut(status.ContainerID, "://")
		}
	}
	n.wrap(c)
	return c
}

func (n *contractNode) wrap(c runtime.Container) {
	n.t.Helper()
	name := n.path("/run/containerd/io.containerd.runtime.v2.task/k8s.io/" + c.ID + "/options.json")
	text, err := os.ReadFile(name)
	if err != nil {
		n.t.Fatal(err)
	}
	options := map[string]any{}
	if err := json.Unmarshal(text, &options); err != nil {
		n.t.Fatal(err)
	}
	options["binary_name"] = n.dir + "/runc"
	wrapped, err := json.Marshal(options)
	if err != nil {
		n.t.Fatal(err)
	}
	if err := os.WriteFile(name, wrapped, 0o600); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { // The runtime reads it, too, when the container has ended.
		if err := os.WriteFile(name, text, 0o600); err != nil && !errors.Is(err, os.ErrNotExist) {
			n.t.Error(err)
		}
	})
	n.write(c.ID, c.Name+"\n", 0o600)
	file, err := os.OpenFile(filepath.Join(n.path(n.dir), "containers"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		n.t.Fatal(err)
	}
	defer file.Close()
	freezer := strings.TrimPrefix(n.freezerOf(n.t, c), n.path("/"))
	if _, err := fmt.Fprintf(file, "%s /%s\n", c.Name, strings.TrimPrefix(freezer, "/")); err != nil {
		n.t.Fatal(err)
	}
}

// Stop kills all processes of a container.
func (n *contractNode) Stop(c runtime.Container) {
	n.t.Helper()
	waitFor(n.t, "container "+c.Name+" has ended", func(ctx context.Context) (bool, error) {
		group, err := freezer.Paths{}.OfContainer(c.ID)
		if errors.Is(err, freezer.ErrNotFound) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		pids, err := group.Processes()
		if errors.Is(err, os.ErrNotExist) || err == nil && len(pids) == 0 {
			return true, nil
		}
		for _, pid := range pids {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				return false, err
			}
		}
		return false, group.Thaw(ctx)
	})
}

func (n *contractNode) Replace(c runtime.Container) {
	n.t.Helper()
	pods := n.Client.CoreV1().Pods(n.Namespace)
	if err := pods.Delete(n.t.Context(), c.Pod, metav1.DeleteOptions{}); err != nil {
		n.t.Error(err)
	}
	n.Stop(c)
	waitFor(n.t, "pod "+c.Pod+" is gone", func(ctx context.Context) (bool, error) {
		_, err := pods.Get(ctx, c.Pod, metav1.GetOptions{})
		return apierrors.IsNotFound(err), nil
	})
	n.Start(c.Pod, c.Name)
}

func (n *contractNode) IsFrozen(c runtime.Container) bool {
	group, err := freezer.Paths{}.OfContainer(c.ID)
	if err != nil {
		return false
	}
	state, err := group.State()
	return err == nil && state != freezer.Thawed
}

func (n *contractNode) Left() []string {
	left, err := filepath.Glob(n.path(n.state) + "/*")
	if err != nil {
		n.t.Error(err)
	}
	return left
}

func (n *contractNode) FailDump(c runtime.Container) { n.write(c.ID+".fail", "", 0o600) }

func (n *contractNode) HoldDump(c runtime.Container) (<-chan struct{}, func()) {
	n.write(c.ID+".hold", "", 0o600)
	held := filepath.Join(n.path(n.dir), c.ID+".held")
	started := make(chan struct{})
	n.t.Cleanup(func() { <-started })
	go func() {
		defer close(started)
		for deadline := time.Now().Add(timeout); time.Now().Before(deadline) && n.t.Context().Err() == nil; time.Sleep(poll) {
			if _, err := os.Stat(held); err == nil {
				return
			}
		}
	}()
	return started, func() { os.RemoveAll(held) }
}

func (n *contractNode) ReplaceInDump(c runtime.Container) {
	started, release := n.HoldDump(c)
	replaced := make(chan struct{})
	n.t.Cleanup(func() { <-replaced })
	go func() {
		defer close(replaced)
		<-started
		n.Stop(c)
		release()
	}()
}

// Die has an agent process make a checkpoint, and kills it and its worker.
func (n *contractNode) Die(at runtimetest.Point, id string, containers ...runtime.Container) {
	n.t.Helper()
	text, err := json.Marshal(task{Config: n.config, ID: id, Containers: containers})
	if err != nil {
		n.t.Fatal(err)
	}
	held := containers[0]
	if at == runtimetest.Dumping {
		held = containers[len(containers)-1]
	}
	started, release := (<-chan struct{})(nil), func() {}
	if at != runtimetest.After {
		started, release = n.HoldDump(held)
	}
	defer release()
	agent := exec.Command("/proc/self/exe", agentArg, string(text))
	agent.Stderr = os.Stderr
	if err := agent.Start(); err != nil {
		n.t.Fatal(err)
	}
	if started != nil {
		<-started
		c := &crash{node: n.node, dir: n.path(filepath.Join(n.state, id))}
		for _, pid := range append([]int{agent.Process.Pid}, c.processes(n.t, workerArg)...) {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				n.t.Error(err)
			}
		}
	}
	err = agent.Wait()
	if (err == nil) != (at == runtimetest.After) {
		n.t.Errorf("the agent has ended with %v", err)
	}
}

// Events returns each freezing of a container once, when it was first seen.
func (n *contractNode) Events() []runtimetest.Event {
	n.t.Helper()
	text, err := os.ReadFile(filepath.Join(n.path(n.dir), "events"))
	if err != nil {
		n.t.Error(err)
	}
	var events []runtimetest.Event
	for line := range strings.Lines(string(text)) {
		what, container, _ := strings.Cut(strings.TrimSpace(line), " ")
		event := runtimetest.Event{What: what, Container: container}
		if !slices.Contains(events, event) {
			events = append(events, event)
		}
	}
	return events
}

func TestContract(t *testing.T) {
	t.Parallel()
	runtimetest.RunSome(t, func(t *testing.T) runtimetest.Node { return newContractNode(t) },
		func(row int) bool { return inSample(0, row, 4) })
}

// A dump that hangs ends when its time is over, and the container goes on.
func TestTimeout(t *testing.T) {
	t.Parallel()
	n := newContractNode(t)
	c := n.Start("web", "main")
	_, release := n.HoldDump(c)
	defer release()
	_, err := n.Engine().Checkpoint(t.Context(), "checkpoint-1", []runtime.Container{c}, runtime.Options{Timeout: time.Second})
	if runtime.ReasonOf(err) != runtime.Timeout || !runtime.IsRetryable(err) {
		t.Errorf("the checkpoint ended with %v (%s), want Timeout, which is worth a retry", err, runtime.ReasonOf(err))
	}
	if !strings.Contains(fmt.Sprint(err), "CRIU had not begun") {
		t.Errorf("the checkpoint ended with %v, which does not say how far CRIU had come", err)
	}
	if n.IsFrozen(c) {
		t.Error("the container is frozen")
	}
	if left := n.Left(); len(left) > 0 {
		t.Errorf("left on disk: %q", left)
	}
	if _, err := n.Engine().Checkpoint(t.Context(), "checkpoint-1", []runtime.Container{c}, runtime.Options{}); err != nil {
		t.Errorf("the next checkpoint: %v", err)
	}
}
