package cluster

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
)

// helperRole in the environment makes this test binary start a cluster and wait to be
// killed.
const helperRole = "TEST_CLUSTER_HELPER"

func TestMain(m *testing.M) {
	if os.Getenv(helperRole) != "" {
		os.Exit(waitToBeKilled())
	}
	os.Exit(m.Run())
}

func waitToBeKilled() int {
	r, err := clusters.get(needs{})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println(r.kubeconfig)
	select {}
}

func TestNamespaceBelongsToOneTest(t *testing.T) {
	var first, second *Cluster
	t.Run("while it runs", func(t *testing.T) {
		first, second = New(t), New(t)
		if first.Namespace == second.Namespace {
			t.Errorf("both have namespace %s", first.Namespace)
		}
		if first.Name != second.Name {
			t.Errorf("they use clusters %s and %s, want one", first.Name, second.Name)
		}
		if first.Config.QPS >= 0 {
			t.Errorf("the client throttles itself: QPS %v", first.Config.QPS)
		}
	})
	for _, c := range []*Cluster{first, second} {
		if err := c.namespaceGone(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestNodes(t *testing.T) {
	var c *Cluster
	t.Cleanup(func() { // Runs after the cluster's own cleanup.
		_, err := c.Client.CoreV1().Namespaces().Get(context.WithoutCancel(t.Context()), c.Namespace, metav1.GetOptions{})
		if !apierrors.IsNotFound(err) {
			t.Errorf("namespace %s after the test: %v, want it to be gone", c.Namespace, err)
		}
	})
	c = New(t, WithNodes(1))
	node := c.Nodes[0]
	t.Run("run commands", func(t *testing.T) {
		if got := c.Run(t, node, "hostname"); got != node+"\n" {
			t.Errorf("the node's hostname is %q, want %q", got, node)
		}
		_, err := c.TryRun(t.Context(), node, "sh", "-c", "echo no >&2; exit 3")
		if err == nil || !strings.Contains(err.Error(), "no") {
			t.Errorf("a command that fails: %v, want its output", err)
		}
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 3 {
			t.Errorf("a command that fails: %v, want its code 3", err)
		}
	})
	t.Run("run images of local programs, and a failure shows their output", func(t *testing.T) {
		script := filepath.Join(t.TempDir(), "run")
		if err := os.WriteFile(script, []byte("#!/bin/busybox sh\necho some words\nexit 3\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		c.LoadImage(t, "test.example/script:1", map[string]string{"/run": script, "/bin/busybox": busyboxOf(t, c)})
		c.runToItsEnd(t, "failing", "test.example/script:1")
		facts := c.report(t.Context())
		for _, want := range []string{"pod failing on " + node + ": Failed", "ended with code 3", "some words", "Scheduled"} {
			if !strings.Contains(facts, want) {
				t.Errorf("the report lacks %q:\n%s", want, facts)
			}
		}
	})
	t.Run("more than exist are an error that says so", func(t *testing.T) {
		_, err := c.readyNodes(t.Context(), len(c.Nodes)+1)
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("devcluster exec --nodes %d", len(c.Nodes)+1)) {
			t.Errorf("got %v", err)
		}
	})
}

// busyboxOf copies a static busybox out of a node.
func busyboxOf(t *testing.T, c *Cluster) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "busybox")
	if err := os.WriteFile(file, []byte(c.Run(t, c.Nodes[0], "cat", "/usr/bin/busybox")), 0o755); err != nil {
		t.Fatal(err)
	}
	return file
}

func (c *Cluster) runToItsEnd(t *testing.T, name, image string) {
	t.Helper()
	pods := c.Client.CoreV1().Pods(c.Namespace)
	_, err := pods.Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyNever,
			Containers:    []corev1.Container{{Name: "main", Image: image, Command: []string{"/run"}}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	err = wait.PollUntilContextTimeout(t.Context(), pollInterval, timeout, true, func(ctx context.Context) (bool, error) {
		pod, err := pods.Get(ctx, name, metav1.GetOptions{})
		return err == nil && (pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded), err
	})
	if err != nil {
		t.Fatalf("waiting for the end of pod %s: %v\n%s", name, err, c.report(t.Context()))
	}
}

// A test that is aborted runs no cleanups. Its cluster must stop anyway.
func TestClusterOfKilledProcessIsStopped(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), helperRole+"=yes", "DEVCLUSTER_NAME=")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	folder := filepath.Dir(strings.TrimSpace(line))
	if _, err := os.Stat(folder); err != nil {
		t.Fatalf("the cluster's folder: %v: %s", err, line)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	for tick := time.Tick(pollInterval); ; <-tick {
		if _, err := os.Stat(folder); errors.Is(err, os.ErrNotExist) {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("%s still exists", folder)
		}
	}
}

func TestClusterOfEnvironmentIsUsed(t *testing.T) {
	t.Setenv("DEVCLUSTER_NAME", "around")
	t.Setenv("KUBECONFIG", "/around/kubeconfig")
	r, err := new(pool).get(needs{})
	if err != nil || r.name != "around" || r.kubeconfig != "/around/kubeconfig" {
		t.Errorf("got %+v, %v", r, err)
	}
}

func TestUsersKubeconfigIsNotUsed(t *testing.T) {
	t.Setenv("DEVCLUSTER_NAME", "")
	t.Setenv("KUBECONFIG", "/home/user/production")
	t.Setenv("DEVCLUSTER", "/does/not/exist")
	if r, err := new(pool).get(needs{}); err == nil {
		t.Errorf("got %+v, want a try to start another cluster", r)
	}
}

func TestBinary(t *testing.T) {
	t.Run("that is not built says how to build it", func(t *testing.T) {
		t.Setenv("DEVCLUSTER", "")
		module := t.TempDir()
		if err := os.WriteFile(filepath.Join(module, "go.mod"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		t.Chdir(module)
		if _, err := Binary(); err == nil || !strings.Contains(err.Error(), "make devcluster") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("of the environment that is not there is an error", func(t *testing.T) {
		t.Setenv("DEVCLUSTER", "/does/not/exist")
		if _, err := Binary(); err == nil || !strings.Contains(err.Error(), "$DEVCLUSTER") {
			t.Errorf("got %v", err)
		}
	})
}

func TestRemainingObjects(t *testing.T) {
	namespace := &corev1.Namespace{Status: corev1.NamespaceStatus{Conditions: []corev1.NamespaceCondition{
		{Type: corev1.NamespaceDeletionContentFailure, Status: corev1.ConditionFalse, Message: "all is well"},
		{Type: corev1.NamespaceFinalizersRemaining, Status: corev1.ConditionTrue, Message: "a finalizer is in 1 resource"},
	}}}
	if got := remainingObjects(namespace); !strings.Contains(got, "a finalizer is in 1 resource") || strings.Contains(got, "well") {
		t.Errorf("got %q, want the remaining objects only", got)
	}
}
