package checkpoint

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-io/holdfast/internal/install"
	"github.com/holdfast-io/holdfast/internal/runtime"
	"github.com/holdfast-io/holdfast/test/cluster"
)

// An installed node is a real one that this process installs a wrapper on, as the init
// container of the DaemonSet does.
type installedNode struct {
	*node
	options install.Options
	out     strings.Builder
}

func newInstalledNode(t *testing.T) *installedNode {
	t.Helper()
	// A node of its own: others would lose their container runtime for a moment.
	c := cluster.New(t, cluster.Own(), cluster.WithNodes(1))
	n := &installedNode{node: &node{Cluster: c, name: c.Nodes[0]}}
	text, err := os.ReadFile(filepath.Join(filepath.Dir(c.Kubeconfig), "nodes", n.name, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	if n.pid, err = strconv.Atoi(string(text)); err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(t.TempDir(), "holdfast-runtime")
	build := exec.Command("go", "build", "-buildvcs=false", "-trimpath", "-o", binary, "../../cmd/holdfast-runtime")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // The node may have another C library.
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the wrapper: %v: %s", err, out)
	}
	n.options = install.Options{
		HostRoot: filepath.Join("/proc", strconv.Itoa(n.pid), "root"), InstallDir: "/var/lib/holdfast/bin",
		Binary: binary, TicketDir: "/var/lib/holdfast/restore", Wait: 90e9, Out: &n.out,
	}
	return n
}

func (n *installedNode) status(t *testing.T) (install.Status, error) {
	t.Helper()
	s, err := install.GetStatus(t.Context(), n.options)
	if err != nil {
		t.Fatal(err)
	}
	return s, s.Err()
}

// restartRuntime kills containerd. The node's supervisor starts it again.
func (n *installedNode) restartRuntime(t *testing.T) {
	t.Helper()
	before := n.Run(t, n.name, "pidof", "containerd")
	n.Run(t, n.name, "kill", "-9", strings.TrimSpace(before))
	waitFor(t, "containerd runs again", func(ctx context.Context) (bool, error) {
		out, err := n.TryRun(ctx, n.name, "sh", "-c", "pidof containerd && ctr version >/dev/null && echo up")
		return err == nil && strings.Contains(out, "up") && !strings.HasPrefix(out, before), nil
	})
}

// wrapped returns how many containers and sandboxes were started through the wrapper.
func (n *installedNode) wrapped(t *testing.T) int {
	t.Helper()
	out := n.Run(t, n.name, "sh", "-c", "grep -l holdfast-runtime /run/containerd/io.containerd.runtime.v2.task/k8s.io/*/runtime || true")
	return strings.Count(out, "\n")
}

// startAgain ends a container, and waits until its pod has another one.
func (n *installedNode) startAgain(t *testing.T, c runtime.Container) {
	t.Helper()
	n.Run(t, n.name, "runc", "--root", runcRoot, "kill", c.ID, "KILL")
	waitFor(t, "pod "+c.Pod+" has another container", func(ctx context.Context) (bool, error) {
		pod, err := n.Client.CoreV1().Pods(n.Namespace).Get(ctx, c.Pod, metav1.GetOptions{})
		if err != nil || len(pod.Status.ContainerStatuses) == 0 {
			return false, err
		}
		now := pod.Status.ContainerStatuses[0]
		return now.State.Running != nil && now.ContainerID != "containerd://"+c.ID, nil
	})
}

func (n *installedNode) deletePod(t *testing.T, name string) {
	t.Helper()
	pods := n.Client.CoreV1().Pods(n.Namespace)
	if err := pods.Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "pod "+name+" is gone", func(ctx context.Context) (bool, error) {
		list, err := pods.List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
		return err == nil && len(list.Items) == 0, err
	})
}

// The whole way on a real node: what the commands say about a node is what its containerd
// does.
func TestInstallOnANode(t *testing.T) {
	t.Parallel()
	n := newInstalledNode(t)
	command := []string{"/bin/sleep", "1000000"}
	configuration := n.configuration(t)
	if s, err := n.status(t); !errors.Is(err, install.ErrNotInstalled) || !s.Running {
		t.Errorf("before: %+v, %v", s, err)
	}
	before := n.run(t, "before", cluster.BusyboxImage, command)
	for range 2 { // The second run changes nothing.
		if err := install.Install(t.Context(), n.options); err != nil {
			t.Fatal(err)
		}
	}
	if !strings.Contains(n.out.String(), "Nothing to do") {
		t.Errorf("the second run changes something: %s", n.out.String())
	}
	if s, err := n.status(t); !errors.Is(err, install.ErrIncomplete) || !s.RestartRequired {
		t.Errorf("before the restart: %+v, %v", s, err)
	}
	n.restartRuntime(t)
	if s, err := n.status(t); err != nil {
		t.Errorf("after the restart: %+v, %v", s, err)
	}
	n.checkMergedConfiguration(t)
	n.run(t, "wrapped", cluster.BusyboxImage, command)
	if got := n.wrapped(t); got != 2 {
		t.Errorf("%d containers and sandboxes were started through the wrapper, want those of one pod", got)
	}
	n.startAgain(t, before[0])
	if got := n.wrapped(t); got != 2 {
		t.Errorf("%d containers and sandboxes were started through the wrapper, want none in a pod that was there before", got)
	}
	if _, err := os.Stat(n.path("/run/criu.kdat")); err != nil {
		t.Errorf("CRIU has not probed the kernel: %v\n%s", err, n.out.String())
	}
	n.uninstallWhilePodsRun(t, configuration)
	n.deletePod(t, "before")
	n.run(t, "after", cluster.BusyboxImage, command)
	if got := n.wrapped(t); got != 0 {
		t.Errorf("%d containers and sandboxes were started through the wrapper after its removal", got)
	}
	if s, err := n.status(t); !errors.Is(err, install.ErrNotInstalled) || s.RestartRequired {
		t.Errorf("in the end: %+v, %v", s, err)
	}
}

// uninstallWhilePodsRun removes the wrapper. It stays for as long as a pod needs it, which
// can be deleted meanwhile.
func (n *installedNode) uninstallWhilePodsRun(t *testing.T, configuration string) {
	t.Helper()
	wrapper := n.path("/var/lib/holdfast/bin/holdfast-runtime-runc")
	uninstall := func(why string) {
		t.Helper()
		n.out.Reset()
		if err := install.Uninstall(t.Context(), n.options); err != nil {
			t.Fatal(err)
		}
		if got := n.configuration(t); got != configuration {
			t.Errorf("the configuration differs after uninstall: %s", got)
		}
		if _, err := os.Stat(wrapper); os.IsNotExist(err) != (why == "") || !strings.Contains(n.out.String(), why) {
			t.Errorf("want the reason %q: %v, %s", why, err, n.out.String())
		}
	}
	uninstall("until it is restarted")
	n.restartRuntime(t)
	uninstall("2 containers and sandboxes were started through it")
	n.deletePod(t, "wrapped")
	waitFor(t, "containerd has removed the pod's tasks", func(context.Context) (bool, error) { return n.wrapped(t) == 0, nil })
	uninstall("")
}

// configuration returns the files of containerd's configuration.
func (n *installedNode) configuration(t *testing.T) string {
	t.Helper()
	return n.Run(t, n.name, "sh", "-c", "tail -n +1 /etc/devcluster/containerd.toml; ls /etc/containerd 2>/dev/null || true")
}

// checkMergedConfiguration has containerd itself say what it understands.
func (n *installedNode) checkMergedConfiguration(t *testing.T) {
	t.Helper()
	out := n.Run(t, n.name, "containerd", "--config", "/etc/devcluster/containerd.toml", "config", "dump")
	for _, line := range []string{"BinaryName = '/var/lib/holdfast/bin/holdfast-runtime-runc'", "restrict_oom_score_adj = true", "checkpoint.example.com/*"} {
		if !strings.Contains(out, line) {
			t.Errorf("containerd's configuration lacks %s", line)
		}
	}
	var config struct{ Runtime string }
	text, err := os.ReadFile(n.path("/var/lib/holdfast/bin/holdfast-runtime-runc.json"))
	if err == nil {
		err = json.Unmarshal(text, &config)
	}
	if err != nil || !strings.HasPrefix(config.Runtime, "/usr/") {
		t.Errorf("the wrapper calls %q: %v", config.Runtime, err)
	}
}
