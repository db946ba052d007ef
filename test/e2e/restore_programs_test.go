package e2e

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/runtime"
	"github.com/holdfast-io/holdfast/test/world"
)

// full runs every row of the long tests. Without it they run a sample.
var full = flag.Bool("full", false, "run every row, not a sample of them")

// programsImage is the image of testdata/programs.c.
const programsImage = "holdfast.io/programs:dev"

// restorable are the programs of testdata/programs.c that go on when they are restored.
var restorable = []string{
	"memory", "threads", "pipes", "socketpair", "files", "deleted", "locks", "listening", "timers", "events", "shared", "tmpfs",
}

// programMemory returns the MiB that the program memory has.
func programMemory() []int {
	if *full {
		return []int{64, 512, 2048}
	}
	return []int{64}
}

// loadPrograms builds testdata/programs.c, and loads it into the nodes.
func (w *checkpointWorld) loadPrograms(t *testing.T) {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "programs")
	if out, err := exec.CommandContext(t.Context(), "gcc", "-O2", "-static", "-pthread", "-o", binary, "testdata/programs.c").CombinedOutput(); err != nil {
		t.Fatalf("building the programs: %v: %s", err, out)
	}
	w.LoadImage(t, programsImage, map[string]string{"/programs": binary})
}

// programsPod returns a pod with a container for each program, on a node. The annotation may
// be empty.
func programsPod(name, node, from string, mib int, programs ...string) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}}
	if from != "" {
		pod.Annotations = map[string]string{v1alpha1.AnnotationRestoreFrom: from}
	}
	grace := int64(0)
	pod.Spec.NodeName, pod.Spec.TerminationGracePeriodSeconds = node, &grace
	for _, program := range programs {
		c := corev1.Container{Name: program, Image: programsImage, Command: []string{"/programs", program}}
		switch program {
		case "memory":
			c.Command = append(c.Command, strconv.Itoa(mib))
		case "tmpfs": // mounts it
			c.SecurityContext = &corev1.SecurityContext{Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"SYS_ADMIN"}}}
		}
		pod.Spec.Containers = append(pod.Spec.Containers, c)
	}
	return pod
}

// startPrograms starts a pod of programs.
func (w *checkpointWorld) startPrograms(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	_, err := w.Client.CoreV1().Pods(pod.Namespace).Create(t.Context(), pod, metav1.CreateOptions{})
	must(t, err)
	t.Cleanup(func() {
		w.kubectl(t, "delete", "pod", pod.Name, "--ignore-not-found", "--wait", "--timeout="+world.Timeout.String())
	})
}

// waitRounds waits until each program of a pod has made three rounds, and one of that number.
// It returns the first rounds that their containers have logged. Nothing may be wrong.
func (w *checkpointWorld) waitRounds(t *testing.T, pod *corev1.Pod, number int) map[string]int {
	t.Helper()
	first := map[string]int{}
	for i := range pod.Spec.Containers {
		program := pod.Spec.Containers[i].Name
		world.Eventually(t, func(ctx context.Context) error {
			rounds, err := w.rounds(ctx, pod.Name, program)
			if errors.Is(err, errWrong) {
				t.Fatal(err)
			}
			if err != nil {
				return err
			}
			if len(rounds) < 3 || rounds[len(rounds)-1] < number {
				return fmt.Errorf("program %s of pod %s has made the rounds %v, want three, and one with the number %d", program, pod.Name, rounds, number)
			}
			first[program] = rounds[0]
			return nil
		})
	}
	return first
}

// errWrong means that a program has found something wrong.
var errWrong = errors.New("the program has found an error")

// rounds returns the rounds that a program has logged since its container was started.
func (w *checkpointWorld) rounds(ctx context.Context, pod, program string) ([]int, error) {
	log, err := w.Client.CoreV1().Pods("default").GetLogs(pod, &corev1.PodLogOptions{Container: program}).DoRaw(ctx)
	if err != nil {
		return nil, err
	}
	var rounds []int
	for lines := bufio.NewScanner(bytes.NewReader(log)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) != 3 || fields[0] != "ok" {
			return nil, fmt.Errorf("%w: in pod %s: %s", errWrong, pod, lines.Text())
		}
		n, err := strconv.Atoi(fields[2])
		if err != nil {
			return nil, err
		}
		rounds = append(rounds, n)
	}
	return rounds, nil
}

// testRestoreOfPrograms: programs that use what a kernel keeps for a process find all of it
// again, in place and in a new pod on the other node.
func (w *checkpointWorld) testRestoreOfPrograms(t *testing.T, storage *v1alpha1.CheckpointStorage) {
	for _, mib := range programMemory() {
		t.Run(fmt.Sprint(mib, " MiB"), func(t *testing.T) {
			programs := restorable
			if mib > 64 {
				programs = []string{"memory"}
			}
			name := fmt.Sprint("programs-", mib)
			pod := programsPod(name, w.Nodes[0], "", mib, programs...)
			w.startPrograms(t, pod)
			w.waitRounds(t, pod, 20)
			w.create(t, checkpointNamespace, name, func(s *v1alpha1.CheckpointSpec) {
				s.Target.PodName, s.Target.ContainerName, s.Storage = name, v1alpha1.AllContainers, storage
			})
			w.waitReady(t, name)
			t.Run("in place", func(t *testing.T) {
				w.kubectl(t, "annotate", "pod", name, v1alpha1.AnnotationRestoreFrom+"="+name)
				w.checkRestoredPrograms(t, pod)
			})
			t.Run("on another node", func(t *testing.T) {
				pod := programsPod(name+"-copy", w.Nodes[1], name, mib, programs...)
				w.startPrograms(t, pod)
				w.checkRestoredPrograms(t, pod)
			})
		})
	}
}

func (w *checkpointWorld) checkRestoredPrograms(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	restored := w.waitRestored(t, pod.Name, corev1.ConditionTrue, v1alpha1.ReasonRestored)
	for program, first := range w.waitRounds(t, pod, 1) {
		if first < 20 {
			t.Errorf("the program %s begins with round %d, want that of the Checkpoint", program, first)
		}
		if program == "listening" {
			checkListener(t, restored.Status.PodIP)
		}
	}
}

// checkListener connects to the program that listens.
func checkListener(t *testing.T, address string) {
	t.Helper()
	connection, err := (&net.Dialer{Timeout: world.Timeout}).DialContext(t.Context(), "tcp", net.JoinHostPort(address, "7001"))
	must(t, err)
	defer connection.Close()
	said, err := bufio.NewReader(connection).ReadString('\n')
	if round, convErr := strconv.Atoi(strings.TrimSpace(said)); err != nil || convErr != nil || round < 20 {
		t.Errorf("the listener says %q, %v, want its round", said, errors.Join(err, convErr))
	}
}

// testRestoreOfConnection: a Checkpoint of a program with a connection is refused, unless the
// restore may close it; the program sees that then.
func (w *checkpointWorld) testRestoreOfConnection(t *testing.T, storage *v1alpha1.CheckpointStorage) {
	pod := programsPod("connected", w.Nodes[0], "", 1, "connected")
	w.startPrograms(t, pod)
	w.waitRounds(t, pod, 20)
	w.create(t, checkpointNamespace, "refused", func(s *v1alpha1.CheckpointSpec) { s.Target.PodName = "connected" })
	w.waitStatus(t, client.ObjectKey{Namespace: checkpointNamespace, Name: "refused"}, func(s *v1alpha1.CheckpointStatus) bool {
		failed := meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionFailed)
		return failed != nil && failed.Status == metav1.ConditionTrue && failed.Reason == string(runtime.EstablishedTCP)
	})
	w.create(t, checkpointNamespace, "closing", func(s *v1alpha1.CheckpointSpec) {
		s.Target.PodName, s.EstablishedTCP, s.Storage = "connected", v1alpha1.CloseTCP, storage
	})
	w.waitReady(t, "closing")
	w.kubectl(t, "annotate", "pod", "connected", v1alpha1.AnnotationRestoreFrom+"=closing")
	w.checkRestoredPrograms(t, pod)
	if log := w.kubectl(t, "logs", "connected"); strings.Count(log, "ok closed") < 3 {
		t.Errorf("the restored program says %s, want that its connection is closed", log)
	}
}
