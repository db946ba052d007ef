package checkpoint

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-io/holdfast/internal/runtime"
	"github.com/holdfast-io/holdfast/internal/ticket"
)

const (
	// runtimeAt is what containerd runs as its OCI runtime: a link to runc.
	runtimeAt = "/usr/local/sbin/oci-runtime"
	// runcRoot is where runc has the state of the containers of Kubernetes.
	runcRoot = "/run/containerd/runc/k8s.io"
	// busybox is an image that every node has.
	busybox = "devcluster.local/busybox:1"
)

// depth is how often a container is checkpointed and restored, one after the other.
func depth() int {
	if *full {
		return 5
	}
	return 2
}

// counter counts, on its output and in a file of its root file system. It ends with 42 when
// it is asked to end. It starts no processes: CRIU waits forever for a process that waits for
// its child to execute a program.
var counter = []string{"sh", "-c", `trap 'exit 42' TERM; mkfifo /pipe; exec 3<>/pipe; i=0
	while :; do i=$((i+1)); echo $i; echo $i >/count; read -t 0.1 -u 3 nothing; done`}

// A wrappedNode is a node with holdfast-runtime in the place of runc.
type wrappedNode struct {
	*node
	dir string // of tickets
}

// wrap puts holdfast-runtime in the place of runc until the test ends.
func wrap(t testing.TB, n *node) *wrappedNode {
	t.Helper()
	w := &wrappedNode{node: n, dir: n.state + "-tickets"}
	binary := filepath.Join(t.TempDir(), "holdfast-runtime")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary, "../../cmd/holdfast-runtime")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building holdfast-runtime: %v\n%s", err, out)
	}
	if out, err := exec.Command("cp", binary, n.path("/usr/local/sbin/holdfast-runtime")).CombinedOutput(); err != nil {
		t.Fatalf("copying holdfast-runtime: %v: %s", err, out)
	}
	w.configure(t, "60s")
	w.link(t, "holdfast-runtime")
	t.Cleanup(func() {
		w.link(t, "../../sbin/runc")
		for _, name := range []string{runtimeAt + ".json", "/usr/local/sbin/holdfast-runtime", w.dir} {
			if err := os.RemoveAll(n.path(name)); err != nil {
				t.Error(err)
			}
		}
	})
	return w
}

// link lets the link of the OCI runtime lead elsewhere, at once.
func (w *wrappedNode) link(t testing.TB, to string) {
	t.Helper()
	name := w.path(runtimeAt)
	if err := errors.Join(os.Symlink(to, name+".new"), os.Rename(name+".new", name)); err != nil {
		t.Fatal(err)
	}
}

func (w *wrappedNode) configure(t testing.TB, wait string) {
	t.Helper()
	w.writeConfig(t, fmt.Sprintf(`{"runtime": "/usr/sbin/runc", "dir": %q, "wait": %q}`, w.dir, wait))
}

func (w *wrappedNode) writeConfig(t testing.TB, text string) {
	t.Helper()
	if err := os.WriteFile(w.path(runtimeAt+".json"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// A countingPod is a pod that counts.
type countingPod struct {
	*wrappedNode
	name string
	uid  string
}

// newPod makes a pod. It asks for a restore if request is not empty.
func (w *wrappedNode) newPod(t testing.TB, name, request string) *countingPod {
	t.Helper()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if request != "" {
		pod.Annotations = map[string]string{ticket.Annotation: request}
	}
	zero := int64(0)
	pod.Spec.TerminationGracePeriodSeconds = &zero
	pod.Spec.NodeName = w.name
	pod.Spec.Containers = []corev1.Container{{Name: "main", Image: busybox, Command: counter}}
	got, err := w.Client.CoreV1().Pods(w.Namespace).Create(t.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return &countingPod{wrappedNode: w, name: name, uid: string(got.UID)}
}

// place is where the wrapper looks for the ticket.
func (p *countingPod) place(t *testing.T) *ticket.Container {
	t.Helper()
	place, err := ticket.At(p.path(p.dir), p.uid, "main")
	if err != nil {
		t.Fatal(err)
	}
	return place
}

func (p *countingPod) issue(t *testing.T, decision ticket.Decision, request, message string) {
	t.Helper()
	if err := p.place(t).Issue(ticket.Ticket{
		Request: request, Decision: decision, Message: message, Expires: time.Now().Add(timeout),
	}); err != nil {
		t.Fatal(err)
	}
}

// stage writes the files of a checkpoint for the container.
func (p *countingPod) stage(t *testing.T, d runtime.Dump) {
	t.Helper()
	to := &restored{node: p.node, dir: filepath.Join(p.dir, p.uid, "main", "data")}
	if err := d.Files(t.Context(), false, to.write); err != nil {
		t.Fatal(err)
	}
}

// status waits until the status of the container is as wanted.
func (p *countingPod) status(t testing.TB, what string, wanted func(corev1.ContainerStatus) bool) corev1.ContainerStatus {
	t.Helper()
	var status corev1.ContainerStatus
	waitFor(t, p.name+": "+what, func(ctx context.Context) (bool, error) {
		pod, err := p.Client.CoreV1().Pods(p.Namespace).Get(ctx, p.name, metav1.GetOptions{})
		if err != nil || len(pod.Status.ContainerStatuses) == 0 {
			return false, err
		}
		status = pod.Status.ContainerStatuses[0]
		return wanted(status), nil
	})
	return status
}

// running waits until the container runs, after so many restarts.
func (p *countingPod) running(t testing.TB, restarts int32) runtime.Container {
	t.Helper()
	status := p.status(t, fmt.Sprintf("the container runs, after %d restarts", restarts), func(s corev1.ContainerStatus) bool {
		return s.State.Running != nil && s.RestartCount == restarts
	})
	_, id, _ := strings.Cut(status.ContainerID, "://")
	return runtime.Container{Namespace: p.Namespace, Pod: p.name, PodUID: p.uid, Name: "main", ID: id}
}

// counts returns what the container has written on its output.
func (p *countingPod) counts(t *testing.T) []int {
	t.Helper()
	stream, err := p.Client.CoreV1().Pods(p.Namespace).GetLogs(p.name, &corev1.PodLogOptions{}).Stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	text, err := io.ReadAll(stream)
	if err != nil {
		t.Fatal(err)
	}
	var all []int
	for field := range strings.FieldsSeq(string(text)) {
		n, err := strconv.Atoi(field)
		if err != nil {
			t.Fatalf("the container says %q", text)
		}
		all = append(all, n)
	}
	return all
}

// countsOn waits until the container has written more than one number, and returns the first
// and the last one. It must not have left out one.
func (p *countingPod) countsOn(t *testing.T) (first, last int) {
	t.Helper()
	var all []int
	waitFor(t, p.name+" counts", func(context.Context) (bool, error) {
		all = p.counts(t)
		return len(all) > 2, nil
	})
	for i, n := range all {
		if n != all[0]+i {
			t.Fatalf("the container counts %v", all)
		}
	}
	return all[0], all[len(all)-1]
}

// goesOn checks that a container goes on from a checkpoint that was made after a number was
// counted.
func (p *countingPod) goesOn(t *testing.T, from int) int {
	t.Helper()
	first, last := p.countsOn(t)
	if first < from {
		t.Errorf("pod %s begins with %d, want it to go on from %d or later", p.name, first, from)
	}
	outcome, err := p.place(t).Outcome()
	if err != nil || outcome.Error != "" || outcome.RestoreSeconds <= 0 {
		t.Errorf("the outcome of pod %s is %+v, %v", p.name, outcome, err)
	}
	return last
}

// state is what runc knows of a container.
func (p *countingPod) state(t *testing.T, c runtime.Container) (state struct {
	Pid    int
	Status string
}) {
	t.Helper()
	text := p.Run(t, p.node.name, runtimeAt, "--root", runcRoot, "state", c.ID)
	if err := json.Unmarshal([]byte(text), &state); err != nil {
		t.Fatal(err)
	}
	return state
}

// The steps use one pod after another: they are one test so that no other test of this
// package changes the node's runtime meanwhile.
func TestRuntimeWrapper(t *testing.T) {
	w := wrap(t, newNode(t, nil))
	t.Run("ordinary containers start without agent, directory and configuration", w.testWithoutAgent)
	t.Run("a pod whose agent does not answer says so", w.testNoAnswer)
	t.Run("a container is restored in place", w.testInPlace)
	t.Run("new pods go on from a checkpoint, again and again", w.testChain)
	t.Run("the message of a ticket is in the status of the pod", w.testFail)
	t.Run("a container is restored as CRI-O's monitor calls the runtime", w.testAsConmon)
	if *full {
		t.Run("a container of an old containerd is restored", w.testOldContainerd)
	}
	t.Run("a restore that is killed leaves nothing, and can be repeated", w.testKilled)
}

func (w *wrappedNode) testWithoutAgent(t *testing.T) {
	w.writeConfig(t, "{")
	pod := w.newPod(t, "plain", "")
	c := pod.running(t, 0)
	w.configure(t, "60s")
	dir := w.path(filepath.Join(w.dir, pod.uid, "main"))
	if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, "ticket.json"), []byte("{"), 0o600)); err != nil {
		t.Fatal(err)
	}
	w.Run(t, w.name, "kill", "-9", fmt.Sprint(pod.state(t, c).Pid))
	pod.running(t, 1)
	if first, _ := pod.countsOn(t); first != 1 {
		t.Errorf("the container begins with %d", first)
	}
}

func (w *wrappedNode) testNoAnswer(t *testing.T) {
	w.configure(t, "100ms")
	defer w.configure(t, "60s")
	pod := w.newPod(t, "forgotten", "nowhere")
	status := pod.status(t, "says why it does not start", func(s corev1.ContainerStatus) bool {
		return strings.Contains(messages(s), "waits for the restore from nowhere")
	})
	if !strings.Contains(messages(status), "the agent has issued no ticket within 100ms") {
		t.Errorf("the status says %s", messages(status))
	}
}

func messages(s corev1.ContainerStatus) string {
	var all []string
	for _, state := range []corev1.ContainerState{s.State, s.LastTerminationState} {
		if state.Waiting != nil {
			all = append(all, state.Waiting.Message)
		}
		if state.Terminated != nil {
			all = append(all, state.Terminated.Message)
		}
	}
	return strings.Join(all, "; ")
}

func (w *wrappedNode) testInPlace(t *testing.T) {
	pod := w.newPod(t, "stays", "")
	c := pod.running(t, 0)
	_, last := pod.countsOn(t)
	pod.stage(t, w.checkpoint(t, c, runtime.Options{}))
	pod.issue(t, ticket.Restore, "c-1", "")
	w.Run(t, w.name, "kill", "-9", fmt.Sprint(pod.state(t, c).Pid))
	pod.running(t, 1)
	pod.goesOn(t, last)
}

func (w *wrappedNode) testChain(t *testing.T) {
	pod := w.newPod(t, "first", "")
	c := pod.running(t, 0)
	descriptors := w.descriptors(t, pod.state(t, c).Pid)
	_, last := pod.countsOn(t)
	for i := range depth() {
		dump := w.checkpoint(t, c, runtime.Options{})
		request := fmt.Sprint("c-", i)
		pod = w.newPod(t, fmt.Sprint("restored-", i), request)
		pod.stage(t, dump)
		pod.issue(t, ticket.Restore, request, "")
		c = pod.running(t, 0)
		last = pod.goesOn(t, last)
		pid := pod.state(t, c).Pid
		waitFor(t, "the restored process has only the descriptors "+descriptors, func(context.Context) (bool, error) {
			return w.descriptors(t, pid) == descriptors, nil // The shell has others while it writes the file.
		})
	}
	t.Run("a restored container can be used as any other", func(t *testing.T) { pod.testUse(t, c) })
}

// descriptors returns the numbers of the open files of a process.
func (w *wrappedNode) descriptors(t *testing.T, pid int) string {
	t.Helper()
	return strings.Join(strings.Fields(w.Run(t, w.name, "ls", fmt.Sprintf("/proc/%d/fd", pid))), " ")
}

func (p *countingPod) testUse(t *testing.T, c runtime.Container) {
	tries := 0
	waitFor(t, "exec reads the file of the container", func(ctx context.Context) (bool, error) {
		tries++
		said, err := p.TryRun(ctx, p.node.name, "ctr", "-n", "k8s.io", "task", "exec", "--exec-id", fmt.Sprint("look-", tries), c.ID, "cat", "/count")
		n, parseErr := strconv.Atoi(strings.TrimSpace(said))
		return parseErr == nil && n > depth(), err // It is empty while it is written.
	})
	if state := p.state(t, c); state.Status != "running" {
		t.Errorf("the state is %+v", state)
	}
	p.issue(t, ticket.StartFresh, "c-"+fmt.Sprint(depth()-1), "")
	p.Run(t, p.node.name, "ctr", "-n", "k8s.io", "task", "kill", "--signal", "SIGTERM", c.ID)
	p.running(t, 1)
	status := p.status(t, "has ended with its exit code", func(s corev1.ContainerStatus) bool { return s.LastTerminationState.Terminated != nil })
	if code := status.LastTerminationState.Terminated.ExitCode; code != 42 {
		t.Errorf("the exit code is %d, want 42", code)
	}
	if first, _ := p.countsOn(t); first != 1 {
		t.Errorf("the container begins with %d, want it to start afresh", first)
	}
}

func (w *wrappedNode) testFail(t *testing.T) {
	pod := w.newPod(t, "refused", "c-x")
	pod.issue(t, ticket.Fail, "c-x", "the image is another one: then a, now b")
	pod.status(t, "says why it is refused", func(s corev1.ContainerStatus) bool {
		return strings.Contains(messages(s), "the image is another one: then a, now b")
	})
}
