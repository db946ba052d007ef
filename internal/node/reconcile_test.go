package node

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/runtime"
	"github.com/holdfast-io/holdfast/internal/runtime/runtimetest"
)

// A nodeWorld is an agent whose cache may be stale, with a dump of Checkpoint default/c on
// the node, and its archive in the store.
type nodeWorld struct {
	*Reconciler
	node    *runtimetest.Fake
	archive string
}

func newNodeWorld(t *testing.T, cached, current []client.Object) *nodeWorld {
	t.Helper()
	scheme := kruntime.NewScheme()
	if err := errors.Join(v1alpha1.AddToScheme(scheme), corev1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	clientOf := func(objects []client.Object) client.Client {
		return fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).WithStatusSubresource(&v1alpha1.Checkpoint{}).Build()
	}
	w := &nodeWorld{node: runtimetest.NewFake(t.TempDir()), archive: filepath.Join(t.TempDir(), "uid", "main.ckpt")}
	engine := w.node.Engine()
	w.Reconciler = &Reconciler{
		client: clientOf(cached), apiReader: clientOf(current), events: kube.NewEventsWithRecorder(record.NewFakeRecorder(10)),
		options: &Options{Node: "n1", Attempts: 3, RetryStart: time.Second, RetryMax: time.Minute}, now: time.Now,
		stores: Stores{Node: "n1", LocalPath: filepath.Dir(filepath.Dir(w.archive))},
	}
	container, err := w.node.Start("pod", "main")
	if err != nil {
		t.Fatal(err)
	}
	dumps, err := engine.Checkpoint(t.Context(), "uid", []runtime.Container{container}, runtime.Options{})
	if err != nil {
		t.Fatal(err)
	}
	w.staged.add("uid", dumps)
	if err := os.Mkdir(filepath.Dir(w.archive), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.archive, []byte("archive"), 0o600); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *nodeWorld) reconcile(t *testing.T) {
	t.Helper()
	if _, err := w.Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKey{Namespace: "default", Name: "c"}}); err != nil {
		t.Fatal(err)
	}
}

func (w *nodeWorld) wantNothingLeft(t *testing.T) {
	t.Helper()
	if left, err := w.node.Left(); err != nil || len(left) > 0 {
		t.Errorf("the node has %v, %v", left, err)
	}
}

func newCheckpoint(conditions ...metav1.Condition) *v1alpha1.Checkpoint {
	return &v1alpha1.Checkpoint{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "c", UID: "uid", Finalizers: []string{v1alpha1.Finalizer}},
		Status: v1alpha1.CheckpointStatus{
			NodeName: "n1", SourceNode: "n1", Conditions: conditions, Attempts: 1,
			Storage:    &v1alpha1.CheckpointStorage{Backend: v1alpha1.BackendLocal},
			Containers: []v1alpha1.ContainerCheckpoint{{Name: "main", Location: "n1:/main.ckpt"}},
		},
	}
}

func TestAStaleCacheDoesNotRepeatTheUploadOfAReadyCheckpoint(t *testing.T) {
	t.Parallel()
	ready := newCheckpoint(metav1.Condition{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue})
	w := newNodeWorld(t, []client.Object{newCheckpoint()}, []client.Object{ready})
	w.reconcile(t)
	if text, err := os.ReadFile(w.archive); string(text) != "archive" {
		t.Errorf("the archive of the ready Checkpoint was replaced or deleted: %v", err)
	}
	w.wantNothingLeft(t)
}

func TestTheDumpsOfACheckpointThatIsGoneAreRemoved(t *testing.T) {
	t.Parallel()
	w := newNodeWorld(t, nil, nil)
	w.reconcile(t)
	w.wantNothingLeft(t)
}

// A foreignEngine is one that does not know the runtime of any container.
type foreignEngine struct{ runtime.Engine }

func (foreignEngine) Name() string { return "foreign" }

func (foreignEngine) Checkpoint(context.Context, string, []runtime.Container, runtime.Options) ([]runtime.Dump, error) {
	return nil, runtime.ErrorfForEngine("the container is run by something else")
}

// An observedEngine notes with which options it was called.
type observedEngine struct {
	runtime.Engine
	options runtime.Options
}

func (e *observedEngine) Checkpoint(ctx context.Context, id string, containers []runtime.Container, options runtime.Options) ([]runtime.Dump, error) {
	e.options = options
	return e.Engine.Checkpoint(ctx, id, containers, options)
}

func TestTheNextEngineIsTriedIfOneDoesNotKnowTheRuntime(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		engines func(observed runtime.Engine) []runtime.Engine
		ready   bool
	}{
		"another one can":    {func(e runtime.Engine) []runtime.Engine { return []runtime.Engine{foreignEngine{e}, e} }, true},
		"there is no other":  {func(e runtime.Engine) []runtime.Engine { return []runtime.Engine{foreignEngine{e}} }, false},
		"no other one knows": {func(e runtime.Engine) []runtime.Engine { return []runtime.Engine{foreignEngine{e}, foreignEngine{e}} }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var observed *observedEngine
			after := dumpWith(t, func(e runtime.Engine) []runtime.Engine {
				observed = &observedEngine{Engine: e}
				return row.engines(observed)
			})
			ready := meta.FindStatusCondition(after.Status.Conditions, v1alpha1.ConditionReady)
			if row.ready != (ready.Status == metav1.ConditionTrue) {
				t.Errorf("got %+v", ready)
			}
			if want := "engine foreign: the container is run by something else"; row.ready && observed.options.NotFaster != want {
				t.Errorf("the reason for the slower engine is %q, want %q", observed.options.NotFaster, want)
			}
			if !row.ready && (ready.Reason != string(runtime.RuntimeUnsupported) || !strings.Contains(ready.Message, "something else")) {
				t.Errorf("got %+v", ready)
			}
		})
	}
}

// dumpWith reconciles a new Checkpoint of a running container on a node with some engines,
// which may be made from a real one. Nothing may be left on the node.
func dumpWith(t *testing.T, engines func(runtime.Engine) []runtime.Engine) (after *v1alpha1.Checkpoint) {
	t.Helper()
	c := newCheckpoint()
	c.Status.Attempts, c.Status.PodUID, c.Spec.Target.PodName = 0, "pod-uid", "pod"
	w := newNodeWorld(t, []client.Object{c}, []client.Object{c})
	if err := w.staged.discard("uid"); err != nil {
		t.Fatal(err)
	}
	running, err := w.node.StartContainer(runtime.Container{Namespace: "default", Pod: "pod", PodUID: "pod-uid", Name: "main"})
	if err != nil {
		t.Fatal(err)
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "pod", UID: "pod-uid"},
		Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{
			Name: "main", ContainerID: "fake://" + running.ID, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}},
		}}},
	}
	if err := w.apiReader.(client.Client).Create(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	w.probes = &prober{}
	for _, engine := range engines(w.node.Engine()) {
		w.probes.results = append(w.probes.results, probe{engine: engine, capability: &runtime.Capability{}})
	}
	w.reconcile(t)
	w.wantNothingLeft(t)
	after = &v1alpha1.Checkpoint{}
	if err := w.client.Get(t.Context(), client.ObjectKeyFromObject(c), after); err != nil {
		t.Fatal(err)
	}
	return after
}

// A failingEngine is one that always fails.
type failingEngine struct {
	runtime.Engine
	err error
}

func (e failingEngine) Checkpoint(context.Context, string, []runtime.Container, runtime.Options) ([]runtime.Dump, error) {
	return nil, e.err
}

// The number of attempts bounds how often a container is frozen in vain.
func TestAContainerThatIsLeftAloneIsNoAttempt(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		err   error
		first bool // whether another engine comes before
		want  int32
	}{
		"the disk was full before the dump":        {err: runtime.WaitErrorf(runtime.InsufficientNodeDisk, "full"), want: 0},
		"the disk was full before a slower engine": {err: runtime.WaitErrorf(runtime.InsufficientNodeDisk, "full"), first: true, want: 0},
		"the dump failed":                          {err: runtime.RetryErrorf(runtime.DumpFailed, "failed"), want: 1},
		"the dump of a slower engine failed":       {err: runtime.RetryErrorf(runtime.DumpFailed, "failed"), first: true, want: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			after := dumpWith(t, func(e runtime.Engine) []runtime.Engine {
				if row.first {
					return []runtime.Engine{foreignEngine{e}, failingEngine{e, row.err}}
				}
				return []runtime.Engine{failingEngine{e, row.err}}
			})
			if after.Status.Attempts != row.want || after.Status.NextAttemptTime == nil {
				t.Errorf("the status is %+v, want %d attempts and another one", after.Status, row.want)
			}
		})
	}
}

// A dump that was in RAM can be read once. When it is stored and the API server cannot be
// reached, the container is not frozen again for that.
func TestAStoredDumpIsReportedWhenTheAPIServerCanBeReached(t *testing.T) {
	t.Parallel()
	c := newCheckpoint()
	w := newNodeWorld(t, []client.Object{c}, []client.Object{c})
	if err := os.Remove(w.archive); err != nil {
		t.Fatal(err)
	}
	outage := errors.New("the API server cannot be reached")
	w.client = interceptor.NewClient(w.client.(client.WithWatch), interceptor.Funcs{
		SubResourcePatch: func(ctx context.Context, next client.Client, name string, object client.Object, patch client.Patch, options ...client.SubResourcePatchOption) error {
			if meta.IsStatusConditionTrue(object.(*v1alpha1.Checkpoint).Status.Conditions, v1alpha1.ConditionReady) && outage != nil {
				return outage
			}
			return next.SubResource(name).Patch(ctx, object, patch, options...)
		},
	})
	w.apiReader = w.client
	request := reconcile.Request{NamespacedName: client.ObjectKeyFromObject(c)}
	if _, err := w.Reconcile(t.Context(), request); !errors.Is(err, outage) {
		t.Fatalf("got %v, want %v", err, outage)
	}
	stored, err := os.ReadFile(w.archive)
	if err != nil {
		t.Fatal(err)
	}
	outage = nil
	w.reconcile(t)
	after := &v1alpha1.Checkpoint{}
	if err := w.client.Get(t.Context(), request.NamespacedName, after); err != nil {
		t.Fatal(err)
	}
	if !meta.IsStatusConditionTrue(after.Status.Conditions, v1alpha1.ConditionReady) || after.Status.Attempts != 1 {
		t.Errorf("the status is %+v, want it ready after one attempt", after.Status)
	}
	if now, err := os.ReadFile(w.archive); err != nil || !bytes.Equal(now, stored) {
		t.Errorf("the archive is another one: %v", err)
	}
	w.wantNothingLeft(t)
}

// The times of a status have seconds only: the second failure in the same second changes
// nothing, so there is no event.
func TestAFailedUploadIsRetriedWithoutAnEvent(t *testing.T) {
	t.Parallel()
	current := []client.Object{newCheckpoint()}
	w := newNodeWorld(t, current, current)
	w.stores.LocalPath = w.archive // A file is no store.
	result, err := w.Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKey{Namespace: "default", Name: "c"}})
	if err != nil || result.RequeueAfter <= 0 || result.RequeueAfter > time.Minute {
		t.Errorf("got %+v, %v, and want another attempt within a minute", result, err)
	}
}
