package volume

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/kube"
)

// full runs all of the sweep, a minute, and not every twelfth run.
var full = flag.Bool("full", false, "run all of the sweep, not a sample")

var errKilled = errors.New("this process was killed")

const kubeletFinalizer = "test/kubelet" // Pods do not go at once.

// A sweepRun is one life of a Checkpoint. The test is the kubelet, the agent and the user.
type sweepRun struct {
	t        *testing.T
	server   client.WithWatch
	killAt   int  // the write at which the process is killed; 0 for none
	after    bool // the write takes effect, its answer is lost
	writes   int
	killed   bool
	stale    bool // the cache is one round old
	cached   *v1alpha1.Checkpoint
	pods     int // that have been created
	deleteAt int // the round in which the user deletes the Checkpoint
	evictAt  int // the round in which the pod is deleted by somebody else
	fails    bool
}

func (w *sweepRun) key() client.ObjectKey { return client.ObjectKey{Namespace: "team", Name: "c"} }

// A row of the sweep.
type sweepRow struct {
	existing        bool // the claim exists already
	fails, stale    bool
	deleteAt, evict int
}

func newScheme(t *testing.T) *runtime.Scheme {
	t.Helper()
	scheme := runtime.NewScheme()
	must(t, corev1.AddToScheme(scheme))
	must(t, v1alpha1.AddToScheme(scheme))
	return scheme
}

func newSweepRun(t *testing.T, scheme *runtime.Scheme, row sweepRow) *sweepRun {
	t.Helper()
	c := mounted().checkpoint
	c.UID, c.Finalizers, c.Status.Volume, c.Status.Containers[0].Location = "1", []string{v1alpha1.Finalizer}, nil, ""
	objects := []client.Object{c, mounted().target}
	if row.existing {
		c.Status.Storage.PVCTemplate, c.Status.Storage.PVC = nil, &v1alpha1.PVCStorage{ClaimName: "data"}
		objects = append(objects, &corev1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: "data", UID: "data-1"},
			Spec:       corev1.PersistentVolumeClaimSpec{AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}},
		})
	}
	uid := func(o client.Object) []string {
		if e, ok := o.(*corev1.Event); ok {
			return []string{string(e.InvolvedObject.UID)}
		}
		return nil
	}
	server := fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).
		WithStatusSubresource(&v1alpha1.Checkpoint{}, &corev1.Pod{}).WithIndex(&corev1.Event{}, "involvedObject.uid", uid).Build()
	return &sweepRun{t: t, server: server, stale: row.stale, deleteAt: row.deleteAt, evictAt: row.evict, fails: row.fails}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// write does a write, unless the process is killed before it.
func (w *sweepRun) write(do func() error) error {
	if w.killed {
		return errKilled
	}
	w.writes++
	w.killed = w.writes == w.killAt
	if w.killed && !w.after {
		return errKilled
	}
	err := do()
	if err != nil && strings.Contains(err.Error(), "test failed") { // The real API server says it so.
		err = apierrors.NewConflict(schema.GroupResource{Resource: "checkpoints"}, "c", err)
	}
	if err == nil && w.killed {
		return errKilled
	}
	return err
}

// process returns the controller of a process without a memory.
func (w *sweepRun) process() *Reconciler {
	own := interceptor.NewClient(w.server, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, options ...client.GetOption) error {
			if into, ok := o.(*v1alpha1.Checkpoint); ok && w.cached != nil && w.stale {
				w.cached.DeepCopyInto(into)
				return nil
			}
			return c.Get(ctx, key, o, options...)
		},
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, options ...client.CreateOption) error {
			return w.write(func() error {
				if pod, ok := o.(*corev1.Pod); ok {
					w.pods++
					pod.UID, pod.Finalizers = types.UID(fmt.Sprint("pod-", w.pods)), []string{kubeletFinalizer}
				} else {
					o.SetUID("claim-1")
				}
				return c.Create(ctx, o, options...)
			})
		},
		Delete: func(ctx context.Context, c client.WithWatch, o client.Object, options ...client.DeleteOption) error {
			return w.write(func() error { return c.Delete(ctx, o, options...) })
		},
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, options ...client.PatchOption) error {
			return w.write(func() error { return c.Patch(ctx, o, p, options...) })
		},
		SubResourcePatch: func(ctx context.Context, c client.Client, name string, o client.Object, p client.Patch, options ...client.SubResourcePatchOption) error {
			return w.write(func() error { return c.SubResource(name).Patch(ctx, o, p, options...) })
		},
	})
	return &Reconciler{
		client: own, apiReader: w.server, events: kube.NewEventsWithRecorder(record.NewFakeRecorder(1000)), now: time.Now,
		options: &Options{RetryStart: time.Second, RetryMax: time.Minute, Program: func(context.Context) (*Program, error) { return &Program{Image: "holdfast"}, nil }},
	}
}

// checkpoint returns the Checkpoint; nil if it is gone.
func (w *sweepRun) checkpoint() (c *v1alpha1.Checkpoint) {
	must(w.t, kube.GetIfExists(w.t.Context(), w.server, w.key(), &c))
	return c
}

func (w *sweepRun) allPods() []corev1.Pod {
	var all corev1.PodList
	must(w.t, w.server.List(w.t.Context(), &all, client.HasLabels{LabelCheckpoint}))
	return all.Items
}

func (w *sweepRun) allClaims() []corev1.PersistentVolumeClaim {
	var all corev1.PersistentVolumeClaimList
	must(w.t, w.server.List(w.t.Context(), &all))
	return all.Items
}

// kubelet binds claims, runs pods and ends those that are deleted.
func (w *sweepRun) kubelet() {
	ctx := w.t.Context()
	if pods := w.allPods(); len(pods) > 1 {
		w.t.Fatalf("there are %d pods", len(pods))
	}
	for _, pod := range w.allPods() {
		if !pod.DeletionTimestamp.IsZero() {
			pod.Finalizers = nil
			must(w.t, w.server.Update(ctx, &pod))
			continue
		}
		claim := &corev1.PersistentVolumeClaim{}
		must(w.t, w.server.Get(ctx, client.ObjectKey{Namespace: pod.Namespace, Name: pod.Spec.Volumes[0].PersistentVolumeClaim.ClaimName}, claim))
		claim.Spec.VolumeName, claim.Status.Phase = "pv", corev1.ClaimBound
		must(w.t, w.server.Update(ctx, claim))
		pod.Status.Phase = corev1.PodRunning
		must(w.t, w.server.Status().Update(ctx, &pod))
	}
}

// isMounted reports whether the agent finds the volume that the status names.
func (w *sweepRun) isMounted(c *v1alpha1.Checkpoint) bool {
	pods := w.allPods()
	return c.Status.Volume != nil && len(pods) == 1 && pods[0].UID == c.Status.Volume.PodUID && pods[0].Status.Phase == corev1.PodRunning
}

// agent makes the next step of an agent: it starts, stores, and deletes the data.
func (w *sweepRun) agent() {
	ctx, c := w.t.Context(), w.checkpoint()
	switch {
	case c == nil:
	case !c.DeletionTimestamp.IsZero():
		if hasTemplate(c) || !hasData(c) || w.isMounted(c) {
			controllerutil.RemoveFinalizer(c, v1alpha1.Finalizer)
			must(w.t, w.server.Update(ctx, c))
		}
	case isComplete(c) || !w.isMounted(c):
	case c.Status.Attempts == 0:
		c.Status.Attempts, c.Status.Containers[0].Location = 1, "pvc:claim/1/main.ckpt"
		must(w.t, w.server.Status().Update(ctx, c))
	default:
		kind := v1alpha1.ConditionReady
		if w.fails {
			kind = v1alpha1.ConditionFailed
		}
		c.Status.Conditions = []metav1.Condition{{Type: kind, Status: metav1.ConditionTrue, Reason: "Done", LastTransitionTime: metav1.Now()}}
		must(w.t, w.server.Status().Update(ctx, c))
	}
}

// others delete the Checkpoint, or its pod.
func (w *sweepRun) others(round int) {
	ctx := w.t.Context()
	if c := w.checkpoint(); round == w.deleteAt && c != nil {
		must(w.t, w.server.Delete(ctx, c))
	}
	for _, pod := range w.allPods() {
		if round == w.evictAt && pod.DeletionTimestamp.IsZero() {
			must(w.t, w.server.Delete(ctx, &pod))
		}
	}
}

// lastRound is when all has to be done.
const lastRound = 60

// isOver reports whether nothing more happens: a further reconciliation has been done.
func (w *sweepRun) isOver(round, gone int) bool {
	if w.deleteAt > 0 {
		return gone > 0 && round > gone+1
	}
	c := w.checkpoint()
	return round > w.evictAt+3 && isComplete(c) && c.Status.Volume.PodName == "" && goalOf(c) == idle
}

// run runs everything until nothing more happens. It returns the round in which the
// Checkpoint went; 0 if it did not.
func (w *sweepRun) run() (gone int) {
	process := w.process()
	for round := 1; round <= lastRound && !w.isOver(round, gone); round++ {
		w.others(round)
		before := w.checkpoint()
		_, err := process.Reconcile(w.t.Context(), reconcile.Request{NamespacedName: w.key()})
		switch {
		case w.killed && w.killAt > 0:
			w.killed, w.killAt = false, 0
			process = w.process()
		case err != nil:
			w.t.Fatalf("round %d: %v", round, err)
		}
		w.cached = before
		w.kubelet()
		w.agent()
		if w.checkpoint() == nil && gone == 0 {
			gone = round
		}
	}
	return gone
}

// check checks what a Checkpoint that was deleted, or has ended, may leave.
func (w *sweepRun) check(row sweepRow, gone int) error {
	c := w.checkpoint()
	switch {
	case row.deleteAt > 0 && gone == 0:
		return fmt.Errorf("the deleted Checkpoint is still there: %+v", c.Status)
	case row.deleteAt == 0 && (c == nil || !isComplete(c) || c.Status.Volume.PodName != ""):
		return fmt.Errorf("the Checkpoint has not ended, or says that it has a pod: %+v", c)
	}
	if pods := w.allPods(); len(pods) > 0 {
		return fmt.Errorf("%d pods are left", len(pods))
	}
	want := 1
	if !row.existing && (row.deleteAt > 0 || row.fails) {
		want = 0
	}
	if claims := w.allClaims(); len(claims) != want {
		return fmt.Errorf("there are %d claims, want %d", len(claims), want)
	}
	return nil
}

// Whenever the operator is killed, the user deletes the Checkpoint or somebody deletes the
// pod, with a cache that is up to date or not: the Checkpoint ends, and no pod and no claim
// of its own is left.
func TestNothingIsLeftWheneverItIsKilled(t *testing.T) {
	t.Parallel()
	nth, runs, scheme := 0, 0, newScheme(t)
	for _, row := range sweepRows() {
		undisturbed := newSweepRun(t, scheme, row)
		gone := undisturbed.run()
		if err := undisturbed.check(row, gone); err != nil {
			t.Errorf("%+v: %v", row, err)
			continue
		}
		for killAt := 1; killAt <= undisturbed.writes; killAt++ {
			for _, after := range []bool{false, true} {
				if nth++; !*full && nth%12 != 0 {
					continue
				}
				w := newSweepRun(t, scheme, row)
				w.killAt, w.after = killAt, after
				if err := w.check(row, w.run()); err != nil {
					t.Errorf("%+v, killed at write %d (after: %v): %v", row, killAt, after, err)
				}
				runs++
			}
		}
	}
	t.Logf("%d runs of %d", runs, nth)
	if nth < 1000 {
		t.Errorf("there are only %d runs: the sweep has lost rows", nth)
	}
}

func sweepRows() []sweepRow {
	var rows []sweepRow
	for _, base := range []sweepRow{{}, {stale: true}, {existing: true}, {existing: true, stale: true}, {fails: true}} {
		for deleteAt := range 13 { // 0: it is not deleted
			row := base
			row.deleteAt = deleteAt
			rows = append(rows, row)
		}
		for evict := 5; evict < 9; evict++ {
			row := base
			row.evict, row.deleteAt = evict, 14
			rows = append(rows, row)
		}
	}
	return rows
}

// What the cache says may be over: a pod that is created for a Checkpoint which has ended
// would be on nobody's record.
func TestOutdatedCheckpointCreatesNothing(t *testing.T) {
	t.Parallel()
	w := newSweepRun(t, newScheme(t), sweepRow{stale: true})
	process := w.process()
	reconcileOnce := func() {
		t.Helper()
		if _, err := process.Reconcile(t.Context(), reconcile.Request{NamespacedName: w.key()}); err != nil {
			t.Fatal(err)
		}
	}
	reconcileOnce()
	w.cached = w.checkpoint() // Its names are recorded.
	ended := w.checkpoint()
	ended.Status.Volume.PodName = ""
	ended.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: "Done", LastTransitionTime: metav1.Now()}}
	must(t, w.server.Status().Update(t.Context(), ended))
	reconcileOnce()
	if claims, pods := w.allClaims(), w.allPods(); len(claims)+len(pods) > 0 {
		t.Errorf("there are %d claims and %d pods", len(claims), len(pods))
	}
}
