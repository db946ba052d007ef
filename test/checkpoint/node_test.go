// Package checkpoint tests the engines that checkpoint containers, on real nodes.
package checkpoint

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/holdfast-io/holdfast/internal/runtime"
	"github.com/holdfast-io/holdfast/internal/runtime/runc"
	"github.com/holdfast-io/holdfast/test/cluster"
)

const (
	// timeout is how long anything may take on a slow machine.
	timeout = 3 * time.Minute
	poll    = 20 * time.Millisecond
	// parallelTests is how many tests run at a time: most wait for pods.
	parallelTests = 3
	// workerArg is the argument with which this test program is the engine's worker.
	workerArg = "checkpoint-worker"
	// workloadImage is the image of testdata/workload.c.
	workloadImage = "holdfast.io/workload:dev"
)

// full runs every row of the long tests. Without it they run a sample, in which each moment,
// victim and step has its turn.
var full = flag.Bool("full", false, "run every row, not a sample of them")

// inSample reports whether a sample that has every n-th row of a group has this one. Groups
// have different rows.
func inSample(group, row, n int) bool { return *full || row%n == group%n }

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == workerArg {
		os.Exit(runc.Main(os.Args[2:]))
	}
	if len(os.Args) > 2 && os.Args[1] == agentArg {
		os.Exit(agentMain(os.Args[2]))
	}
	if len(os.Args) > 2 && os.Args[1] == restorerArg {
		os.Exit(restorerMain(os.Args[2]))
	}
	if len(os.Args) > 2 && os.Args[1] == saverArg {
		os.Exit(saverMain(os.Args[2]))
	}
	cluster.RunInParallel(parallelTests)
	os.Exit(m.Run())
}

// A node is a real node with an engine of its own.
type node struct {
	*cluster.Cluster
	name   string
	pid    int // of the node's first process, on this machine
	state  string
	config runc.Config
	engine *runc.Engine
}

// newNode returns a node. Nothing may be left of its engine's checkpoints when the test
// ends.
func newNode(t testing.TB, change func(*runc.Config)) *node {
	t.Helper()
	c := cluster.New(t, cluster.WithNodes(1))
	n := &node{Cluster: c, name: c.Nodes[0]}
	text, err := os.ReadFile(filepath.Join(filepath.Dir(c.Kubeconfig), "nodes", n.name, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	if n.pid, err = strconv.Atoi(string(text)); err != nil {
		t.Fatal(err)
	}
	n.state = "/var/lib/holdfast-" + c.Namespace
	n.config = runc.Config{
		StateDir: n.state, HostPID: n.pid, WorkerArgs: []string{workerArg}, MaxMemory: 8 << 30,
		// The disk of a busy machine may let CRIU wait for longer than by default.
		Timeout: 10 * time.Minute,
	}
	if change != nil {
		change(&n.config)
	}
	if n.engine, err = runc.New(n.config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.checkNothingLeft(t) })
	return n
}

// path is a path of the node, as this machine sees it.
func (n *node) path(name string) string {
	return filepath.Join("/proc", strconv.Itoa(n.pid), "root", name)
}

func (n *node) checkNothingLeft(t testing.TB) {
	t.Helper()
	entries, err := os.ReadDir(n.path(n.state))
	if err != nil && !os.IsNotExist(err) {
		t.Error(err)
	}
	for _, entry := range entries {
		t.Errorf("checkpoint %s is left on the node", entry.Name())
	}
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", n.pid))
	if err != nil {
		t.Error(err)
	}
	if strings.Contains(string(mounts), n.state) {
		t.Errorf("a mount below %s is left on the node", n.state)
	}
	if err := os.RemoveAll(n.path(n.state)); err != nil {
		t.Error(err)
	}
}

// loadWorkload builds testdata/workload.c and loads it into the nodes, once.
var loadWorkload = sync.OnceValue(func() error {
	dir, err := os.MkdirTemp("", "workload")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "workload")
	out, err := exec.Command("gcc", "-O2", "-static", "-pthread", "-o", binary, "testdata/workload.c").CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return loadImage(binary)
})

// loadImage is set by the first test that needs the image.
var loadImage func(binary string) error

// run starts a pod with one container for each command, and returns them when they run.
func (n *node) run(t testing.TB, name, image string, commands ...[]string) []runtime.Container {
	t.Helper()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}}
	zero := int64(0)
	pod.Spec.TerminationGracePeriodSeconds = &zero
	pod.Spec.NodeName = n.name
	for i, command := range commands {
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{
			Name: fmt.Sprint("c", i), Image: image, Command: command,
		})
	}
	pods := n.Client.CoreV1().Pods(n.Namespace)
	if _, err := pods.Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	var all []runtime.Container
	waitFor(t, "pod "+name+" runs", func(ctx context.Context) (bool, error) {
		got, err := pods.Get(ctx, name, metav1.GetOptions{})
		if err != nil || got.Status.Phase != corev1.PodRunning {
			return false, err
		}
		all = all[:0]
		for _, container := range got.Status.ContainerStatuses {
			_, id, _ := strings.Cut(container.ContainerID, "://")
			all = append(all, runtime.Container{Namespace: n.Namespace, Pod: name, PodUID: string(got.UID), Name: container.Name, ID: id})
		}
		return true, nil
	})
	return all
}

func waitFor(t testing.TB, what string, condition wait.ConditionWithContextFunc) {
	t.Helper()
	if err := wait.PollUntilContextTimeout(t.Context(), poll, timeout, true, condition); err != nil {
		t.Fatalf("waiting until %s: %v", what, err)
	}
}

// runWorkload runs the workload with these areas, and returns its container when it has
// checked each of them once.
func (n *node) runWorkload(t testing.TB, name string, areas ...string) runtime.Container {
	t.Helper()
	loadImage = func(binary string) error {
		n.LoadImage(t, workloadImage, map[string]string{"/workload": binary})
		return nil
	}
	if err := loadWorkload(); err != nil {
		t.Fatal(err)
	}
	c := n.run(t, name, workloadImage, append([]string{"/workload"}, areas...))[0]
	n.waitRounds(t, c, areas, n.rounds(t, c), 1)
	return c
}

// rounds returns how often each area of a workload has been found right. The test fails
// if one was found wrong.
func (n *node) rounds(t testing.TB, c runtime.Container) map[string]int {
	t.Helper()
	stream, err := n.Client.CoreV1().Pods(c.Namespace).GetLogs(c.Pod, &corev1.PodLogOptions{Container: c.Name}).Stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	return readRounds(t, stream)
}

func readRounds(t testing.TB, output io.Reader) map[string]int {
	t.Helper()
	rounds := map[string]int{}
	lines := bufio.NewScanner(output)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		switch {
		case len(fields) == 4 && fields[0] == "ok":
			rounds[fields[1]]++
		default:
			t.Fatalf("the workload says: %s", lines.Text())
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return rounds
}

// waitRounds waits until the workload has checked each area so many times more.
func (n *node) waitRounds(t testing.TB, c runtime.Container, areas []string, before map[string]int, more int) {
	t.Helper()
	waitFor(t, "the workload has checked its memory", func(context.Context) (bool, error) {
		return haveMore(n.rounds(t, c), before, areas, more), nil
	})
}

func haveMore(now, before map[string]int, areas []string, more int) bool {
	for _, area := range areas {
		name, kind, _ := strings.Cut(area, "=")
		names := []string{name}
		if strings.HasPrefix(kind, "fork") {
			names = append(names, name+"-child")
		}
		for _, name := range names {
			if now[name] < before[name]+more {
				return false
			}
		}
	}
	return true
}

// checkpoint checkpoints one container.
func (n *node) checkpoint(t testing.TB, c runtime.Container, options runtime.Options) runtime.Dump {
	t.Helper()
	dumps, err := n.engine.Checkpoint(t.Context(), "checkpoint-"+c.Pod, []runtime.Container{c}, options)
	if err != nil {
		t.Fatal(err)
	}
	if len(dumps) != 1 {
		t.Fatalf("there are %d dumps of one container", len(dumps))
	}
	t.Cleanup(func() {
		if err := dumps[0].Discard(); err != nil {
			t.Error(err)
		}
	})
	return dumps[0]
}
