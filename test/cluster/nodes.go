package cluster

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// BusyboxImage is on every node: a shell and the usual small programs.
const BusyboxImage = "devcluster.local/busybox:1"

// LoadImage builds an image from files of this machine and loads it into every node,
// where it stays until the cluster ends. files maps absolute paths in the image to
// files here. programs are absolute paths of programs of the nodes' Debian, which are
// copied with their libraries. The image runs its first file, in the order of paths,
// unless a pod has a command.
//
// Pods must not try to pull the image: use any tag but "latest".
func (c *Cluster) LoadImage(t testing.TB, name string, files map[string]string, programs ...string) {
	t.Helper()
	args := []string{"load", "--name", c.Name, name}
	for _, to := range slices.Sorted(maps.Keys(files)) {
		args = append(args, "--file", to+"="+files[to])
	}
	for _, program := range programs {
		args = append(args, "--program", program)
	}
	if out, err := c.devcluster(t.Context(), args...); err != nil {
		t.Fatalf("loading image %s: %v\n%s", name, err, out)
	}
}

// Run runs a command as root on a node and returns its output. The test fails if the
// command does.
func (c *Cluster) Run(t testing.TB, node string, command ...string) string {
	t.Helper()
	out, err := c.TryRun(t.Context(), node, command...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TryRun is Run for commands that may fail: the error wraps an *exec.ExitError and has
// the command's stderr.
func (c *Cluster) TryRun(ctx context.Context, node string, command ...string) (string, error) {
	out, err := c.devcluster(ctx, append([]string{"shell", "--name", c.Name, node, "--"}, command...)...)
	if err != nil {
		return out, fmt.Errorf("on node %s: %q: %w", node, command, err)
	}
	return out, nil
}

func (c *Cluster) devcluster(ctx context.Context, args ...string) (string, error) {
	binary, err := Binary()
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.String(), nil
}

// readyNodes returns the names of the ready nodes.
func (c *Cluster) readyNodes(ctx context.Context, want int) ([]string, error) {
	list, err := c.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("listing the nodes of cluster %s: %w", c.Name, err)
	}
	var ready []string
	for i := range list.Items {
		if isReady(&list.Items[i]) {
			ready = append(ready, list.Items[i].Name)
		}
	}
	if len(ready) < want {
		return nil, fmt.Errorf("cluster %s has %d ready nodes of %d and this test needs %d; start it by: devcluster exec --nodes %d",
			c.Name, len(ready), len(list.Items), want, want)
	}
	return ready, nil
}

func isReady(node *corev1.Node) bool {
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}
