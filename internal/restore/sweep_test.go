package restore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/archive"
	"github.com/holdfast-io/holdfast/internal/ephemeral"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/runtime/oci"
	"github.com/holdfast-io/holdfast/internal/store"
	"github.com/holdfast-io/holdfast/internal/ticket"
)

// errDied is the panic of an agent that dies.
var errDied = errors.New("the agent died")

var errInjected = errors.New("injected")

// A fault strikes at one call of the agent, which are numbered.
type fault struct {
	kind string // "", "error", "response lost", "killed before", "killed after"
	at   int
}

// A sweptNode is a node with one pod, its kubelet and the OCI runtime wrapper, in which an
// agent restores the pod while a fault strikes.
type sweptNode struct {
	t     *testing.T
	api   client.Client
	dir   string
	agent *Reconciler

	fault fault
	mu    sync.Mutex
	calls []string // what the agent has called so far

	archive []byte
	policy  v1alpha1.RestoreOptions
	// runs are the containers that were started, "fresh" or "restored".
	runs []string
	// volume is whether the data are in a volume.
	volume bool
	// failures is how often the wrapper fails to restore, and how.
	failures []ticket.Outcome
	alive    bool
	// unreported is whether the kubelet does not report containers.
	unreported bool
	// now is the agent's time; the real one if it is zero.
	now   time.Time
	inRAM bool // whether the agent may keep the memory there
	// unreachable is whether the store is.
	unreachable bool
	// sharedMemory is what is in /dev/shm.
	sharedMemory string
}

var podKey = client.ObjectKey{Namespace: "ns", Name: "p"}

func newSweptNode(t *testing.T, running bool) *sweptNode {
	t.Helper()
	n := &sweptNode{t: t, dir: t.TempDir()}
	scheme := runtime.NewScheme()
	if err := errors.Join(v1alpha1.AddToScheme(scheme), corev1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "uid-p", Annotations: map[string]string{v1alpha1.AnnotationRestoreFrom: "c"}},
		Spec:       corev1.PodSpec{NodeName: "n1", RestartPolicy: corev1.RestartPolicyAlways, Containers: []corev1.Container{{Name: "main"}}},
	}
	var digest string
	n.archive, digest = newArchive(t, "main", "{}")
	checkpoint := &v1alpha1.Checkpoint{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "c", UID: "uid-c"},
		Spec:       v1alpha1.CheckpointSpec{Target: v1alpha1.CheckpointTarget{PodName: "old"}, PolicyRef: "policy"},
		Status: v1alpha1.CheckpointStatus{
			PodUID: "uid-old", Storage: &v1alpha1.CheckpointStorage{Backend: v1alpha1.BackendS3},
			Conditions: []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue}},
			Containers: []v1alpha1.ContainerCheckpoint{{Name: "main", ContainerID: "old", Digest: digest, Volumes: []string{ephemeral.SharedMemory}}},
		},
	}
	n.api = fake.NewClientBuilder().WithScheme(scheme).WithObjects(pod, checkpoint).
		WithStatusSubresource(&v1alpha1.Checkpoint{}).Build()
	if running {
		n.start("fresh")
	}
	return n
}

// pagesFile has the memory of the container.
const pagesFile = "checkpoint/pages-1.img"

var pages = strings.Repeat("x", largeFile)

// newArchive returns the archive of a container of a checkpoint, and its digest.
func newArchive(t *testing.T, container, spec string) ([]byte, string) {
	t.Helper()
	var out bytes.Buffer
	w, err := archive.NewWriter(&out, archive.Header{Identity: archive.Identity{
		Namespace: "ns", Pod: "old", PodUID: "uid-old", Container: container, ContainerID: "old",
	}}, archive.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"spec.dump": spec, pagesFile: pages, ephemeral.FileName(ephemeral.SharedMemory): "saved"} {
		if err := w.Add(t.Context(), archive.File{Name: name, Size: int64(len(text)), Mode: 0o600, Reader: strings.NewReader(text)}); err != nil {
			t.Fatal(err)
		}
	}
	result, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes(), result.Digest
}

// call is a call of the agent to something else. It counts, and the fault may strike.
func (n *sweptNode) call(name string, do func() error) error {
	if !n.count(name) {
		return do()
	}
	switch n.fault.kind {
	case "error":
		return errInjected
	case "killed before":
		panic(errDied)
	}
	err := do()
	switch n.fault.kind {
	case "response lost":
		return errInjected
	case "killed after":
		panic(errDied)
	}
	return err
}

// count counts a call, and reports whether the fault strikes at it.
func (n *sweptNode) count(name string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.calls = append(n.calls, name)
	return len(n.calls)-1 == n.fault.at
}

// startAgent starts an agent with an empty memory.
func (n *sweptNode) startAgent() {
	wrapped := interceptor.NewClient(n.api.(client.WithWatch), interceptor.Funcs{ //nolint:forcetypeassert // The fake client is one.
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, options ...client.GetOption) error {
			if policy, ok := o.(*v1alpha1.CheckpointPolicy); ok {
				policy.Name, policy.Spec.Restore = key.Name, &n.policy
				return nil
			}
			return n.call(fmt.Sprintf("get %T", o), func() error { return c.Get(ctx, key, o, options...) })
		},
		SubResourcePatch: func(ctx context.Context, c client.Client, name string, o client.Object, p client.Patch, options ...client.SubResourcePatchOption) error {
			if _, ok := o.(*v1alpha1.Checkpoint); ok {
				return n.call(fmt.Sprintf("patch %T", o), func() error { return c.SubResource(name).Patch(ctx, o, p, options...) })
			}
			return n.call(fmt.Sprintf("patch %T", o), func() error { return n.writeStatus(ctx, o.(*corev1.Pod)) }) //nolint:forcetypeassert // The agent writes no other.
		},
	})
	options := &Options{Node: "n1", Dir: n.dir, RetryStart: time.Nanosecond, RetryMax: time.Nanosecond, Environment: func() *v1alpha1.Environment { return &v1alpha1.Environment{} },
		Handlers: func(context.Context) *Handlers { return nil }}
	if n.inRAM {
		options.Memory = n
	}
	n.agent = &Reconciler{
		client: wrapped, apiReader: wrapped, events: kube.NewEventsWithRecorder(record.NewFakeRecorder(1000)),
		options: options, archives: n, node: n, fetches: semaphore.NewWeighted(maxFetches), backoff: newBackoff(options), now: n.time,
	}
}

func (n *sweptNode) time() time.Time {
	if n.now.IsZero() {
		return time.Now()
	}
	return n.now
}

// Open implements [Archives].
func (n *sweptNode) Open(_ context.Context, c *v1alpha1.Checkpoint, _ string) (object store.Object, err error) {
	err = n.call("open", func() error {
		if n.volume && c.Status.Volume.PodUID != "mounts" {
			n.t.Errorf("the data are fetched from the volume %+v before it is mounted", c.Status.Volume)
		}
		if n.unreachable {
			return store.ErrUnavailable
		}
		object = storedObject{bytes.NewReader(n.archive), n}
		return nil
	})
	return object, err
}

// Key implements [Archives].
func (n *sweptNode) Key(context.Context, *v1alpha1.Checkpoint) (*archive.Key, error) {
	return nil, n.call("key", func() error { return nil })
}

// HoldImages implements [Memory].
func (n *sweptNode) HoldImages(_ context.Context, _, dir string, files map[string]int64, _ int64) (string, error) {
	return "", n.call("hold", func() error {
		if err := errors.Join(os.Mkdir(dir, 0o700), unix.Mount("test", dir, "tmpfs", 0, "size=64m")); err != nil {
			return err
		}
		for name, size := range files {
			if err := os.WriteFile(filepath.Join(dir, name), make([]byte, size), 0o600); err != nil {
				return err
			}
		}
		return nil
	})
}

// A storedObject is an archive in a store, of which a read may fail.
type storedObject struct {
	*bytes.Reader
	node *sweptNode
}

func (o storedObject) Close() error { return nil }

// ReadAt is called from several goroutines, so that the agent cannot be killed in it.
func (o storedObject) ReadAt(p []byte, offset int64) (int, error) {
	if o.node.count("read") && o.node.fault.kind == "error" {
		return 0, errInjected
	}
	return o.Reader.ReadAt(p, offset)
}

func (o storedObject) NewReader(offset, length int64) (io.ReadCloser, error) {
	return io.NopCloser(io.NewSectionReader(o, offset, length)), nil
}

// Bundle implements [Node].
func (n *sweptNode) Bundle(string) (bundle *oci.Bundle, err error) {
	err = n.call("bundle", func() error {
		bundle = &oci.Bundle{Wrapped: true}
		return nil
	})
	return bundle, err
}

// Kill implements [Node].
func (n *sweptNode) Kill(_ context.Context, id string) error {
	return n.call("kill", func() error {
		if n.alive && id == n.currentID() {
			n.end()
		}
		return nil
	})
}

func (n *sweptNode) currentID() string { return fmt.Sprintf("id-%d", len(n.runs)) }

// start starts a container, as the kubelet reports it.
func (n *sweptNode) start(how string) {
	n.runs, n.alive = append(n.runs, how), true
	defer func() { n.sharedMemory = "changed by the container" }()
	n.report(corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}, n.currentID())
}

func (n *sweptNode) end() {
	n.alive = false
	n.report(corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
		ExitCode: 137, StartedAt: metav1.Now(), ContainerID: "containerd://" + n.currentID(),
	}}, n.currentID())
}

func (n *sweptNode) report(state corev1.ContainerState, id string) {
	n.t.Helper()
	if n.unreported {
		return
	}
	pod := n.pod()
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", ContainerID: "containerd://" + id, State: state}}
	if err := n.api.Status().Update(context.Background(), pod); err != nil {
		n.t.Fatal(err)
	}
}

// writeStatus writes the status of a pod and its annotations, as pods/status does. The fake
// client would write the status only.
func (n *sweptNode) writeStatus(ctx context.Context, pod *corev1.Pod) error {
	current := n.pod()
	if current.ResourceVersion != pod.ResourceVersion {
		return apierrors.NewConflict(corev1.Resource("pods"), pod.Name, errors.New("it has changed"))
	}
	current.Annotations = pod.Annotations
	if err := n.api.Update(ctx, current); err != nil {
		return err
	}
	current.Status = pod.Status
	if err := n.api.Status().Update(ctx, current); err != nil {
		return err
	}
	current.DeepCopyInto(pod)
	return nil
}

func (n *sweptNode) pod() *corev1.Pod {
	n.t.Helper()
	pod := &corev1.Pod{}
	if err := n.api.Get(context.Background(), podKey, pod); err != nil {
		n.t.Fatal(err)
	}
	return pod
}

// kubelet starts the container if it does not run, by its ticket, as the wrapper does.
func (n *sweptNode) kubelet() {
	n.t.Helper()
	if n.alive {
		return
	}
	place, err := ticket.At(n.dir, "uid-p", "main")
	if err != nil {
		n.t.Fatal(err)
	}
	found, err := place.Claim(time.Now())
	switch {
	case errors.Is(err, ticket.ErrNone), err == nil && found.Decision == ticket.Fail:
		return // The start fails, and the kubelet tries again.
	case err != nil:
		n.t.Fatal(err)
	case found.Decision == ticket.StartFresh:
		n.start("fresh")
		return
	}
	if err := place.Release(); err != nil { // as when the wrapper ends
		n.t.Fatal(err)
	}
	outcome := ticket.Outcome{Request: found.Request, ContainerID: n.currentID(), Ended: n.time()}
	n.putBack(place, found)
	switch {
	case !n.checkPages(place):
		outcome.Error = "the checkpoint is not whole"
	case len(n.failures) > 0:
		outcome, n.failures = n.failures[0], n.failures[1:]
	default:
		n.start("restored")
		outcome.ContainerID = n.currentID()
	}
	if outcome.Error == "killed without an outcome" {
		return
	}
	if err := place.SetOutcome(outcome); err != nil {
		n.t.Fatal(err)
	}
}

// checkPages checks the memory from which the container is restored, if there is one.
func (n *sweptNode) checkPages(place *ticket.Container) bool {
	n.t.Helper()
	if !place.HasData() {
		return false
	}
	if text, err := os.ReadFile(filepath.Join(place.DataDir(), pagesFile)); err != nil || string(text) != pages {
		n.t.Errorf("the container has %d bytes of memory, and not those of the checkpoint: %v", len(text), err)
	}
	// What cannot be kept there is kept on disk.
	refused := n.fault.at >= 0 && n.fault.at < len(n.calls) && n.calls[n.fault.at] == "hold" && !strings.HasPrefix(n.fault.kind, "killed")
	if want := n.inRAM && !refused; want != isMemory(place.ImagesDir()) {
		n.t.Errorf("the memory is in RAM: %v, want %v", !want, want)
	}
	return true
}

// putBack puts the volumes of a ticket back.
func (n *sweptNode) putBack(place *ticket.Container, t *ticket.Ticket) {
	n.t.Helper()
	for _, v := range t.Volumes {
		err := place.PutBack(v.Name, func(archive *os.File) error {
			text, err := io.ReadAll(archive)
			n.sharedMemory = string(text)
			return err
		})
		if err != nil {
			n.t.Error(err)
		}
	}
	if n.sharedMemory != "saved" {
		n.t.Errorf("a container is restored, and its volume has %q", n.sharedMemory)
	}
}

// step lets the agent do one step. It returns whether the agent died.
func (n *sweptNode) step() (died bool) {
	defer func() {
		if problem := recover(); problem != nil {
			if problem != errDied { //nolint:errorlint // It is the very value.
				panic(problem)
			}
			died = true
		}
	}()
	// An error is retried, as by the workqueue.
	_, _ = n.agent.Reconcile(context.Background(), reconcile.Request{NamespacedName: podKey})
	return false
}

// run lets agent and kubelet work until nothing changes any more.
func (n *sweptNode) run() {
	n.t.Helper()
	n.startAgent()
	for idle := 0; idle < 3; idle++ {
		before, runs, alive := n.pod().ResourceVersion, len(n.runs), n.alive
		if n.step() {
			n.startAgent()
			idle = 0
		}
		n.kubelet()
		n.operator()
		if n.pod().ResourceVersion != before || len(n.runs) != runs || n.alive != alive {
			idle = 0
		}
	}
}

// useVolume puts the data into a volume.
func (n *sweptNode) useVolume() {
	n.t.Helper()
	n.volume = true
	c := n.checkpoint()
	c.Status.Storage.Backend, c.Status.Volume = v1alpha1.BackendPVC, &v1alpha1.CheckpointVolume{ClaimName: "claim", VolumeName: "pv"}
	err := errors.Join(n.api.Status().Update(n.t.Context(), c),
		n.api.Create(n.t.Context(), &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv"}}),
		n.api.Create(n.t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}))
	if err != nil {
		n.t.Fatal(err)
	}
}

func (n *sweptNode) checkpoint() *v1alpha1.Checkpoint {
	n.t.Helper()
	c := &v1alpha1.Checkpoint{}
	if err := n.api.Get(context.Background(), client.ObjectKey{Namespace: "ns", Name: "c"}, c); err != nil {
		n.t.Fatal(err)
	}
	return c
}

// operator mounts the volume when the agent has asked for it, until the restore has ended.
func (n *sweptNode) operator() {
	n.t.Helper()
	if !n.volume {
		return
	}
	c := n.checkpoint()
	if n.pod().Annotations[v1alpha1.AnnotationObservedRestoreFrom] != "" {
		c.Status.RestoreMounts = nil
	}
	for i := range c.Status.RestoreMounts {
		c.Status.RestoreMounts[i].MountedBy = "mounts"
	}
	if err := n.api.Status().Update(context.Background(), c); err != nil {
		n.t.Fatal(err)
	}
}

func (n *sweptNode) checkNothingLeft(t *testing.T) {
	t.Helper()
	place, err := ticket.At(n.dir, "uid-p", "main")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{place.DataDir(), filepath.Join(n.dir, "uid-p", ".volumes")} {
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("data of the checkpoint are still on the node: %s, %v", dir, err)
		}
	}
}

// Whatever call of the agent fails, or kills it: a pod is restored once, in place or from the
// start, never started afresh instead, and nothing is left on the node.
func TestSweepOfARestore(t *testing.T) {
	for name, from := range map[string]struct{ running, volume, inRAM bool }{
		"in place": {running: true}, "new pod": {}, "new pod, memory in RAM": {inRAM: true}, "from a volume": {volume: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := []string{"restored"}
			if from.running {
				want = []string{"fresh", "restored"}
			}
			check := func(t *testing.T, f fault) int {
				t.Helper()
				n := newSweptNode(t, from.running)
				if from.volume {
					n.useVolume()
				}
				n.fault, n.inRAM = f, from.inRAM
				n.run()
				pod := n.pod()
				if !isRestored(pod) || pod.Annotations[v1alpha1.AnnotationObservedRestoreFrom] != "c" {
					t.Errorf("the pod is not restored: %+v", pod.Status.Conditions)
				}
				if !slices.Equal(n.runs, want) {
					t.Errorf("the containers were %q, want %q", n.runs, want)
				}
				n.checkNothingLeft(t)
				if counts := n.checkpoint().Status.Restores; f.at < 0 && counts != (v1alpha1.RestoreCounts{Succeeded: 1}) {
					t.Errorf("the Checkpoint counts %+v", counts)
				}
				settled := len(n.calls)

				// Once is enough.
				n.end()
				n.run()
				if again := append(slices.Clone(want), "fresh"); !slices.Equal(n.runs, again) {
					t.Errorf("after another end the containers were %q, want %q", n.runs, again)
				}
				if t.Failed() {
					t.Logf("the calls were %q", n.calls)
				}
				return settled
			}
			calls := check(t, fault{at: -1})
			for at := range calls {
				for _, kind := range []string{"error", "response lost", "killed before", "killed after"} {
					t.Run(fmt.Sprintf("%s call %d", kind, at), func(t *testing.T) { check(t, fault{kind, at}) })
				}
			}
		})
	}
}

func TestFailedRestores(t *testing.T) {
	failed := ticket.Outcome{Request: "c", Error: "CRIU"}
	incompatible := ticket.Outcome{Request: "c", Error: "mounts", Incompatible: true}
	tests := map[string]struct {
		failures []ticket.Outcome
		policy   v1alpha1.RestoreOptions
		runs     []string
		reason   string
	}{
		"a failure is final, and the container does not start": {[]ticket.Outcome{failed}, v1alpha1.RestoreOptions{}, []string{"fresh"}, v1alpha1.ReasonRestoreFailed},
		"a failure is repeated if the policy says so": {[]ticket.Outcome{failed, failed}, v1alpha1.RestoreOptions{OnFailure: v1alpha1.OnFailureRetry},
			[]string{"fresh", "restored"}, v1alpha1.ReasonRestored},
		"a container that does not fit is not tried again": {[]ticket.Outcome{incompatible}, v1alpha1.RestoreOptions{OnFailure: v1alpha1.OnFailureRetry},
			[]string{"fresh"}, v1alpha1.ReasonIncompatible},
		"a container starts afresh if the policy says so": {[]ticket.Outcome{failed}, v1alpha1.RestoreOptions{OnFailure: v1alpha1.OnFailureStartFresh},
			[]string{"fresh", "fresh"}, v1alpha1.ReasonStartedFresh},
		"an interrupted restore is repeated": {[]ticket.Outcome{{Request: "c", Error: "killed", Interrupted: true}}, v1alpha1.RestoreOptions{},
			[]string{"fresh", "restored"}, v1alpha1.ReasonRestored},
		"a restore without an outcome is repeated": {[]ticket.Outcome{{Error: "killed without an outcome"}}, v1alpha1.RestoreOptions{},
			[]string{"fresh", "restored"}, v1alpha1.ReasonRestored},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			n := newSweptNode(t, true)
			n.fault.at, n.failures, n.policy = -1, tt.failures, tt.policy
			n.run()
			if c := conditionOf(n.pod()); c == nil || c.Reason != tt.reason {
				t.Errorf("the condition is %+v, want the reason %s", c, tt.reason)
			}
			if !slices.Equal(n.runs, tt.runs) {
				t.Errorf("the containers were %q, want %q", n.runs, tt.runs)
			}
			n.checkNothingLeft(t)
		})
	}
}

// A node that has restarted has lost what was in RAM. The ticket is of no use without it,
// whether somebody has tried to use it or not, and the data are fetched again.
func TestDataThatAreGoneAreFetchedAgain(t *testing.T) {
	for name, used := range map[string]bool{"the ticket was not used": false, "the ticket was used in vain": true} {
		t.Run(name, func(t *testing.T) {
			n := newSweptNode(t, true)
			n.fault.at, n.inRAM = -1, true
			n.startAgent()
			place, err := ticket.At(n.dir, "uid-p", "main")
			if err != nil {
				t.Fatal(err)
			}
			for {
				n.step()
				if _, err := place.Ticket(); err == nil {
					break
				}
			}
			if err := unix.Unmount(place.ImagesDir(), unix.MNT_DETACH); err != nil {
				t.Fatal(err)
			}
			if used {
				n.end()
				n.kubelet()
			}
			n.run()
			if !isRestored(n.pod()) || !slices.Equal(n.runs, []string{"fresh", "restored"}) {
				t.Errorf("the containers were %q, and the condition is %+v", n.runs, conditionOf(n.pod()))
			}
			n.checkNothingLeft(t)
		})
	}
}

func TestRestoreAgainWheneverTheContainerEnds(t *testing.T) {
	n := newSweptNode(t, true)
	n.fault.at, n.policy.OnRestart = -1, v1alpha1.OnRestartRestore
	n.run()
	for range 2 {
		n.end()
		n.run()
	}
	if want := []string{"fresh", "restored", "restored", "restored"}; !slices.Equal(n.runs, want) {
		t.Errorf("the containers were %q, want %q", n.runs, want)
	}
	pod := n.pod()
	delete(pod.Annotations, v1alpha1.AnnotationRestoreFrom)
	if err := n.api.Update(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	n.run()
	n.checkNothingLeft(t)
}

// Whoever can write to the store may put another archive there, which is whole.
func TestAnArchiveThatWasReplacedIsNotRestored(t *testing.T) {
	n := newSweptNode(t, true)
	n.fault.at = -1
	n.archive, _ = newArchive(t, "main", `{"process": {}}`)
	n.run()
	if c := conditionOf(n.pod()); c == nil || c.Reason != v1alpha1.ReasonRestoreFailed || !strings.Contains(c.Message, "it was replaced") {
		t.Errorf("the condition is %+v, want that the archive was replaced", c)
	}
	if want := []string{"fresh"}; !slices.Equal(n.runs, want) || !n.alive {
		t.Errorf("the containers were %q, %v, want that the first one runs on", n.runs, n.alive)
	}
	n.checkNothingLeft(t)
}

// The shim of a container dies when it was restored, and before it is started: containerd
// forgets it, and it runs.
func TestARestoredContainerThatNobodyKnowsIsEnded(t *testing.T) {
	n := newSweptNode(t, false)
	n.fault.at, n.unreported = -1, true
	n.startAgent()
	n.step()
	n.step()
	n.kubelet()
	if !n.alive || !slices.Equal(n.runs, []string{"restored"}) {
		t.Fatalf("the containers are %q, %v, want one that runs", n.runs, n.alive)
	}
	n.step()
	if !n.alive {
		t.Error("the container has ended before the kubelet had time to report it")
	}
	n.unreported = false
	n.now = time.Now().Add(2 * reportTime)
	n.step()
	if n.alive {
		t.Error("the container that nobody knows still runs")
	}
	n.run()
	if want := []string{"restored", "restored"}; !slices.Equal(n.runs, want) || !isRestored(n.pod()) {
		t.Errorf("the containers were %q, want %q", n.runs, want)
	}
	n.checkNothingLeft(t)
}

// A Checkpoint that is deleted takes its data from the node with it. The pod says what becomes
// of its container, which starts afresh only if the policy said so.
func TestTheCheckpointOfARestoredPodIsDeleted(t *testing.T) {
	for onFailure, last := range map[v1alpha1.RestoreFailure]string{v1alpha1.OnFailureFail: "", v1alpha1.OnFailureStartFresh: "fresh"} {
		for _, isRunning := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, running %v", onFailure, isRunning), func(t *testing.T) {
				n := newSweptNode(t, true)
				n.fault.at, n.policy = -1, v1alpha1.RestoreOptions{OnRestart: v1alpha1.OnRestartRestore, OnFailure: onFailure}
				n.run()
				if err := n.api.Delete(t.Context(), n.checkpoint()); err != nil {
					t.Fatal(err)
				}
				want := []string{"fresh", "restored"}
				if !isRunning { // The agent has not seen it yet.
					n.end()
					n.kubelet()
					want = append(want, "restored")
				}
				n.run()
				if c := conditionOf(n.pod()); c.Status != corev1.ConditionFalse || c.Reason != v1alpha1.ReasonCheckpointNotFound || !strings.Contains(c.Message, string(onFailure)) {
					t.Errorf("the condition is %+v", c)
				}
				if !n.alive {
					t.Error("a container was ended that ran")
				}
				n.checkNothingLeft(t)
				n.end()
				n.run()
				if last != "" {
					want = append(want, last)
				}
				if !slices.Equal(n.runs, want) {
					t.Errorf("the containers were %q, want %q", n.runs, want)
				}
			})
		}
	}
}

// A Checkpoint that is being deleted when its pod has just been restored.
func TestTheCheckpointOfAPodIsDeletedWhileItIsRestored(t *testing.T) {
	n := newSweptNode(t, true)
	n.fault.at, n.policy = -1, v1alpha1.RestoreOptions{OnRestart: v1alpha1.OnRestartRestore}
	n.startAgent()
	for !isRestored(n.pod()) {
		n.step()
		n.kubelet()
	}
	c := n.checkpoint()
	c.Finalizers = []string{v1alpha1.Finalizer}
	if err := errors.Join(n.api.Update(t.Context(), c), n.api.Delete(t.Context(), c)); err != nil {
		t.Fatal(err)
	}
	n.run()
	if c := conditionOf(n.pod()); c.Reason != v1alpha1.ReasonCheckpointNotFound || !strings.Contains(c.Message, "is being deleted; it does not start any more") {
		t.Errorf("the condition is %+v", c)
	}
	n.checkNothingLeft(t)
	if want := []string{"fresh", "restored"}; !slices.Equal(n.runs, want) || !n.alive {
		t.Errorf("the containers were %q, alive: %v, want %q", n.runs, n.alive, want)
	}
}
