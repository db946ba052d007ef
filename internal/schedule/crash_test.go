package schedule

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	checkpointv1alpha1 "github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/api/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/kube"
)

var errCrashed = errors.New("this process has crashed")

// A crashTest has an API server, the cache of the present process, and a log of the writes.
type crashTest struct {
	kind         kind
	server       client.WithWatch
	cache        client.WithWatch // as old as its last refresh
	now          time.Time        // by the clock of the processes
	serverBehind time.Duration    // is how far that of the API server is behind it
	noServerTime bool             // the API server does not tell its time
	staleBy      time.Duration    // is how far what is known of its time is behind it until the next response

	writes       int // all that were tried
	failAt       int // the write at which the process dies; 0 for none
	failAfter    bool
	crashed      bool
	rejectPrefix string         // claims whose UIDs begin so are allowed no snapshot
	rejectDelay  time.Duration  // is how long that takes
	undeletable  string         // a claim of which no snapshot may go
	lists        int            // all snapshots were listed at the API server
	historyLists int            // those of some claims were listed there
	created      map[string]int // snapshots by claim and run
	removed      []string
}

func crashScheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, snapshotv1.AddToScheme, v1alpha1.AddToScheme, checkpointv1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			panic(err)
		}
	}
	return scheme
}

func storeOf(objects ...client.Object) client.WithWatch {
	return fake.NewClientBuilder().WithScheme(crashScheme()).WithObjects(objects...).
		WithStatusSubresource(&v1alpha1.SnapshotSchedule{}, &snapshotv1.VolumeSnapshot{}, &checkpointv1alpha1.CheckpointSchedule{}, &checkpointv1alpha1.Checkpoint{}).
		WithIndex(&snapshotv1.VolumeSnapshot{}, bySchedule, scheduleUID).
		WithIndex(&checkpointv1alpha1.Checkpoint{}, bySchedule, scheduleUID).Build()
}

func newCrashTest(t *testing.T, s *v1alpha1.SnapshotSchedule, claims []corev1.PersistentVolumeClaim) *crashTest {
	objects := []client.Object{s}
	for i := range claims {
		objects = append(objects, &claims[i])
		old := newSnapshotFor(s, &claims[i], runAt(twoYesterday, twoYesterday))
		old.UID, old.CreationTimestamp = "old", *metaTime(twoYesterday)
		old.Status = &snapshotv1.VolumeSnapshotStatus{ReadyToUse: ptr.To(true)}
		objects = append(objects, old)
	}
	w := &crashTest{kind: snapshotKind{}, server: storeOf(objects...), now: noon, created: map[string]int{}}
	w.refresh(t)
	return w
}

// refresh updates the cache.
func (w *crashTest) refresh(t *testing.T) {
	t.Helper()
	var objects []client.Object
	for _, list := range []client.ObjectList{w.kind.newScheduleList(), w.kind.newChildList(), &corev1.PersistentVolumeClaimList{}} {
		if err := w.server.List(t.Context(), list); err != nil {
			t.Fatal(err)
		}
		if err := meta.EachListItem(list, func(o runtime.Object) error {
			objects = append(objects, o.(client.Object))
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	w.cache = storeOf(objects...)
}

// write does a write unless the process dies before, and it may die after.
func (w *crashTest) write(do func() error) error {
	if w.crashed {
		return errCrashed
	}
	w.writes++
	struck := w.writes == w.failAt
	w.crashed = struck
	if struck && !w.failAfter {
		return errCrashed
	}
	if err := do(); err != nil || !struck {
		return err
	}
	return errCrashed
}

// process is a process with an empty memory.
func (w *crashTest) process() *Reconciler {
	w.crashed = false
	writes := interceptor.NewClient(w.server, interceptor.Funcs{
		Get: func(ctx context.Context, _ client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			return w.cache.Get(ctx, key, o, opts...)
		},
		List: func(ctx context.Context, _ client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
			return w.cache.List(ctx, list, opts...)
		},
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			if w.rejectPrefix != "" && strings.HasPrefix(o.GetLabels()[w.kind.getTerms().targetLabel], w.rejectPrefix) {
				w.now = w.now.Add(w.rejectDelay)
				return apierrors.NewForbidden(schema.GroupResource{Resource: "volumesnapshots"}, o.GetName(), errors.New("exceeded quota"))
			}
			return w.write(func() error {
				o.SetCreationTimestamp(metav1.Time{Time: w.now.Add(-w.serverBehind)})
				err := c.Create(ctx, o, opts...)
				if err == nil {
					w.created[o.GetLabels()[w.kind.getTerms().targetLabel]+" "+o.GetAnnotations()[runAnnotation]]++
				}
				return err
			})
		},
		Delete: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
			if w.undeletable != "" && strings.HasPrefix(o.GetName(), w.undeletable) {
				return apierrors.NewForbidden(schema.GroupResource{Resource: "volumesnapshots"}, o.GetName(), errors.New("legal hold"))
			}
			return w.write(func() error {
				err := c.Delete(ctx, o, opts...)
				if err == nil {
					w.removed = append(w.removed, o.GetName())
				}
				return err
			})
		},
		SubResourcePatch: func(ctx context.Context, c client.Client, sub string, o client.Object, p client.Patch, opts ...client.SubResourcePatchOption) error {
			return w.write(func() error { return c.SubResource(sub).Patch(ctx, o, p, opts...) })
		},
	})
	live := interceptor.NewClient(w.server, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			w.staleBy = 0
			return c.Get(ctx, key, o, opts...)
		},
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
			w.staleBy = 0
			o := client.ListOptions{}
			o.ApplyOptions(opts)
			if _, ok := list.(*snapshotv1.VolumeSnapshotList); ok {
				if strings.Contains(o.LabelSelector.String(), claimLabel) {
					w.historyLists++
				} else {
					w.lists++
				}
			}
			return c.List(ctx, list, opts...)
		},
	})
	return &Reconciler{
		kind: w.kind, client: writes, apiReader: live, metrics: newMetrics(w.kind.getTerms()), events: kube.NewEventsWithRecorder(record.NewFakeRecorder(1000)),
		options: &Options{RetryStart: time.Second}, now: func() time.Time { return w.now },
		serverTime: func() (time.Time, bool) { return w.now.Add(-w.serverBehind - w.staleBy), !w.noServerTime },
	}
}

// makeOneReady makes the snapshots ready that were begun, one of them at a time.
func (w *crashTest) makeOneReady(t *testing.T, most int) (done bool) {
	t.Helper()
	all := w.kind.newChildList()
	if err := w.server.List(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	under := 0
	if err := meta.EachListItem(all, func(o runtime.Object) error {
		child := o.(client.Object)
		if w.kind.childStatus(child).ready {
			return nil
		}
		if under++; under > 1 {
			return nil
		}
		setReady(child, w.now)
		return w.server.Status().Update(t.Context(), child)
	}); err != nil {
		t.Fatal(err)
	}
	if under > most {
		t.Errorf("%d snapshots are under way, and %d may be", under, most)
	}
	return under == 0
}

// setReady makes a VolumeSnapshot or a Checkpoint ready.
func setReady(o client.Object, at time.Time) {
	switch o := o.(type) {
	case *snapshotv1.VolumeSnapshot:
		o.Status = &snapshotv1.VolumeSnapshotStatus{ReadyToUse: ptr.To(true), CreationTime: &metav1.Time{Time: at}}
	case *checkpointv1alpha1.Checkpoint:
		o.Status.PodUID, o.Status.CheckpointTime = types.UID(o.Labels[podLabel]), ptr.To(metav1.NewMicroTime(at))
		o.Status.Workload = &checkpointv1alpha1.Workload{APIVersion: "v1", Kind: "Pod", Name: o.Spec.Target.PodName}
		meta.SetStatusCondition(&o.Status.Conditions, metav1.Condition{Type: checkpointv1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: checkpointv1alpha1.ReasonCompleted})
	}
}

// runUntilIdle lets processes work, each until it dies, with caches that are up to date
// only every lag-th time, until nothing is left to do.
func (w *crashTest) runUntilIdle(t *testing.T, lag int) {
	t.Helper()
	key := client.ObjectKey{Namespace: "team", Name: "daily"}
	r := w.process()
	for i := range 100 {
		if w.crashed {
			r = w.process()
		}
		before := w.writes
		if i%lag == 0 {
			w.refresh(t)
		}
		_, err := r.Reconcile(t.Context(), reconcile.Request{NamespacedName: key})
		if err != nil && !errors.Is(err, errCrashed) {
			t.Fatal(err)
		}
		w.now = w.now.Add(time.Second)
		if idle := w.writes == before && !w.crashed && i%lag == 0; w.makeOneReady(t, 2) && idle {
			return
		}
	}
	t.Fatal("there is no end to it")
}

// newDueTest is one in which a run is due: three claims with a snapshot of
// yesterday each, of which two may be snapshotted at a time and one is kept.
func newDueTest(t *testing.T) *crashTest {
	s := daily()
	s.Spec.MaxConcurrent, s.Spec.Retention, s.Spec.Trigger = 2, keepOne(), "go"
	s.Status.LastScheduleTime = metaTime(twoYesterday)
	return newCrashTest(t, s, manyClaims(3))
}

func (w *crashTest) schedule(t *testing.T) *v1alpha1.SnapshotSchedule {
	t.Helper()
	s := &v1alpha1.SnapshotSchedule{}
	if err := w.server.Get(t.Context(), client.ObjectKey{Namespace: "team", Name: "daily"}, s); err != nil {
		t.Fatal(err)
	}
	return s
}

func (w *crashTest) assertRunDone(t *testing.T) {
	t.Helper()
	for _, claim := range []string{"c0-uid", "c1-uid", "c2-uid"} {
		if n := w.created[claim+" "+formatTime(twoToday)]; n != 1 {
			t.Errorf("claim %s had %d snapshots taken", claim, n)
		}
	}
	if len(w.created) != 3 || len(w.removed) != 3 {
		t.Errorf("taken: %v, removed: %v", w.created, w.removed)
	}
	if is := w.schedule(t).Status; is.LastTrigger != "go" || is.Run.CompletionTime == nil || !is.LastScheduleTime.Equal(metaTime(twoToday)) || is.Conditions[0].Reason != v1alpha1.Scheduled {
		t.Errorf("%+v", is)
	}
}

// A process may crash before or after any write, and its successor may have a stale cache: every
// claim gets one snapshot, and each expired snapshot is deleted once.
func TestARunSurvivesDeathAtAnyWrite(t *testing.T) {
	for _, lag := range []int{1, 2, 3} {
		w := newDueTest(t)
		w.runUntilIdle(t, lag)
		w.assertRunDone(t)
		for n := range w.writes {
			for _, after := range []bool{false, true} {
				t.Run(fmt.Sprintf("lag %d, write %d, after %v", lag, n+1, after), func(t *testing.T) {
					w := newDueTest(t)
					w.failAt, w.failAfter = n+1, after
					w.runUntilIdle(t, lag)
					w.assertRunDone(t)
				})
			}
		}
	}
}

func TestNothingIsWrittenWhenNothingChanges(t *testing.T) {
	w := newDueTest(t)
	w.runUntilIdle(t, 1)
	before := w.writes
	w.refresh(t)
	for range 3 {
		result, err := w.process().Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKey{Namespace: "team", Name: "daily"}})
		if err != nil || result.RequeueAfter != maxRequeueInterval {
			t.Errorf("%v, %v", result, err)
		}
		w.now = w.now.Add(time.Minute)
	}
	if w.writes != before {
		t.Errorf("%d writes", w.writes-before)
	}
	t.Logf("a run of three claims took %d writes", before)
}

// A cache that does not show yet that the newest snapshot was deleted would lead to the deletion
// of the second one.
func TestWhatGoesIsDecidedAtTheAPIServer(t *testing.T) {
	s, claims := daily(), manyClaims(1)
	s.Spec.Retention = keepOne()
	w := newCrashTest(t, s, claims)
	newer := newSnapshotFor(s, &claims[0], runAt(twoToday, twoToday))
	newer.UID, newer.CreationTimestamp, newer.Status = "new", *metaTime(twoToday), &snapshotv1.VolumeSnapshotStatus{ReadyToUse: ptr.To(true)}
	if err := w.server.Create(t.Context(), newer.DeepCopy()); err != nil {
		t.Fatal(err)
	}
	w.refresh(t)
	if err := w.server.Delete(t.Context(), newer); err != nil {
		t.Fatal(err)
	}
	_, err := w.process().Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKeyFromObject(s)})
	if err != nil || len(w.removed) > 0 {
		t.Errorf("%v, removed: %v", err, w.removed)
	}
}

// The same holds for a process that trusts its cache.
func TestWhatGoesIsDecidedAtTheAPIServerEachTime(t *testing.T) {
	w := newDueTest(t)
	w.runUntilIdle(t, 1)
	all := &snapshotv1.VolumeSnapshotList{}
	if err := w.server.List(t.Context(), all, client.MatchingLabels{claimLabel: "c0-uid"}); err != nil || len(all.Items) != 1 {
		t.Fatal(err, len(all.Items))
	}
	s, r := w.schedule(t), w.process()
	two := newSnapshotFor(s, &manyClaims(1)[0], runAt(noon.Add(time.Hour), noon.Add(time.Hour)))
	two.UID, two.CreationTimestamp = "two", *metaTime(noon.Add(time.Hour))
	two.Status = &snapshotv1.VolumeSnapshotStatus{ReadyToUse: ptr.To(true)}
	r.expectations.setFromAPIServer(&state{schedule: snapshotKind{}.fromObject(s)}, &state{})
	if err := w.server.Create(t.Context(), two.DeepCopy()); err != nil {
		t.Fatal(err)
	}
	w.refresh(t)
	if err := w.server.Delete(t.Context(), two); err != nil {
		t.Fatal(err)
	}
	before := len(w.removed)
	_, err := r.Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKeyFromObject(s)})
	if err != nil || len(w.removed) > before {
		t.Errorf("%v, removed: %v", err, w.removed[before:])
	}
}

// Snapshots that the process created and the cache does not show yet count as in progress.
func TestWhatTheCacheDoesNotShowYetIsUnderWay(t *testing.T) {
	s := daily()
	s.Spec.MaxConcurrent, s.Spec.Trigger = 2, "go"
	w := newCrashTest(t, s, manyClaims(6))
	r := w.process()
	for range 3 {
		if _, err := r.Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKeyFromObject(s)}); err != nil {
			t.Fatal(err)
		}
	}
	if len(w.created) != 2 || w.lists != 3 {
		t.Errorf("taken: %v, listed: %d", w.created, w.lists)
	}
}

// A claim that the cache does not show yet is part of a triggered run and of its completion,
// even if the process trusts its cache.
func TestATriggerIsAboutTheClaimsThatThereAre(t *testing.T) {
	s := daily()
	w := newCrashTest(t, s, manyClaims(1))
	r, request := w.process(), reconcile.Request{NamespacedName: client.ObjectKeyFromObject(s)}
	r.expectations.setFromAPIServer(&state{schedule: snapshotKind{}.fromObject(s)}, &state{})
	late := boundClaim("late")
	visit := func() {
		t.Helper()
		w.refresh(t)
		if err := w.cache.Delete(t.Context(), late.DeepCopy()); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Reconcile(t.Context(), request); err != nil {
			t.Fatal(err)
		}
	}
	s = w.schedule(t)
	s.Spec.Trigger, s.Generation = "go", 2
	if err := errors.Join(w.server.Create(t.Context(), late.DeepCopy()), w.server.Update(t.Context(), s)); err != nil {
		t.Fatal(err)
	}
	if visit(); len(w.created) != 2 {
		t.Fatalf("taken: %v", w.created)
	}
	w.makeOneReady(t, 2) // That of the claim that the cache shows.
	if visit(); w.schedule(t).Status.LastTrigger != "" {
		t.Error("the trigger is answered, and a claim has no ready snapshot")
	}
}

// A suspension takes effect at once, even if the cache does not show it.
func TestASuspensionCountsAtOnce(t *testing.T) {
	w := newDueTest(t)
	s, r := w.schedule(t), w.process()
	r.expectations.setFromAPIServer(&state{schedule: snapshotKind{}.fromObject(s)}, &state{})
	s.Spec.Suspend, s.Generation = true, 2
	if err := w.server.Update(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	_, err := r.Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKeyFromObject(s)})
	if err != nil || len(w.created) > 0 || w.schedule(t).Status.Plan != nil {
		t.Errorf("%v, taken: %v", err, w.created)
	}
}

// A process lists all snapshots when it starts, not again for each claim of a run.
func TestARunOfManyClaimsDoesNotListAllForEach(t *testing.T) {
	s := daily()
	s.Spec.MaxConcurrent, s.Spec.Retention, s.Status.LastScheduleTime = 2, keepOne(), metaTime(twoYesterday)
	w := newCrashTest(t, s, manyClaims(20))
	w.runUntilIdle(t, 1)
	if len(w.created) != 20 || len(w.removed) != 20 || w.lists > 1 {
		t.Errorf("taken: %d, removed: %d, listed: %d", len(w.created), len(w.removed), w.lists)
	}
}

// A snapshot that cannot be deleted, such as one on legal hold, is reported, and its deletion is
// retried after a pause. It blocks neither other deletions nor runs.
func TestASnapshotThatMayNotGoStopsNothing(t *testing.T) {
	w := newDueTest(t)
	w.undeletable = "c0-20261120"
	w.runUntilIdle(t, 1)
	if len(w.created) != 3 || len(w.removed) != 2 {
		t.Errorf("taken: %v, removed: %v", w.created, w.removed)
	}
	is := w.schedule(t)
	if c := is.Status.Conditions[0]; c.Reason != v1alpha1.RemovalFailing || !strings.Contains(c.Message, "legal hold") || is.Status.LastTrigger != "go" {
		t.Errorf("%+v", is.Status)
	}
	w.now = w.now.Add(time.Hour)
	result, err := w.process().Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKeyFromObject(is)})
	if err != nil || result.RequeueAfter != retryInterval {
		t.Errorf("%v, %v", result, err)
	}
	w.undeletable = ""
	w.runUntilIdle(t, 1)
	w.assertRunDone(t)
}

// If a rejection takes long, as from an unreachable webhook, the waiting claims have their turn in
// the next reconciles, before rejected ones.
func TestSlowRefusalsDoNotHoldUpOthers(t *testing.T) {
	s := daily()
	s.Spec.Trigger = "go"
	w := newCrashTest(t, s, manyClaims(30))
	w.rejectPrefix, w.rejectDelay = "c1", 6*time.Second // c1 and c10 to c19
	key, r := client.ObjectKeyFromObject(s), w.process()
	for len(w.created) < 19 && w.now.Before(noon.Add(3*time.Minute)) {
		before := w.now
		result, err := r.Reconcile(t.Context(), reconcile.Request{NamespacedName: key})
		if took := w.now.Sub(before); err != nil || took > maxReconcileTime+w.rejectDelay || result.RequeueAfter > retryInterval {
			t.Fatalf("a visit took %s, %v, %v", took, result, err)
		}
		w.now = w.now.Add(max(result.RequeueAfter, maxDebounce))
		w.refresh(t)
		for !w.makeOneReady(t, 30) {
			w.refresh(t)
		}
		w.refresh(t)
	}
	if len(w.created) != 19 {
		t.Errorf("of 19 claims %d had snapshots taken", len(w.created))
	}
}

// A claim whose snapshot is rejected blocks neither other snapshots nor deletions. It is retried
// after a pause.
func TestOneBadClaimStopsNothing(t *testing.T) {
	w := newDueTest(t)
	w.rejectPrefix = "c0-uid"
	w.runUntilIdle(t, 1)
	if n := len(w.created); n != 2 || len(w.removed) != 2 {
		t.Errorf("taken: %v, removed: %v", w.created, w.removed)
	}
	s, key := w.schedule(t), client.ObjectKey{Namespace: "team", Name: "daily"}
	if c := s.Status.Claims[0]; c.Reason != v1alpha1.CreateFailed || c.RetryTime == nil || s.Status.LastTrigger != "" || s.Status.Run.CompletionTime != nil {
		t.Errorf("%+v", s.Status)
	}
	w.rejectPrefix = ""
	w.refresh(t)
	result, err := w.process().Reconcile(t.Context(), reconcile.Request{NamespacedName: key})
	if err != nil || result.RequeueAfter > retryInterval || len(w.created) != 2 {
		t.Errorf("%v, %v, taken: %v", result, err, w.created)
	}
	w.now = w.now.Add(result.RequeueAfter)
	w.runUntilIdle(t, 1)
	w.assertRunDone(t)
}

// Kinds reach the cache one by one. If the cached status says that a claim has its snapshot, but
// the snapshot is missing, the trigger does not complete.
func TestACacheThatLacksASnapshotAnswersNoTrigger(t *testing.T) {
	s, claims := midRun(), manyClaims(1)
	s.Status.Claims = []v1alpha1.ClaimStatus{{Name: "c0", UID: "c0-uid", LastRunTime: metaTime(noon)}}
	w := newCrashTest(t, s, claims) // What it holds of snapshots is of before.
	made := newSnapshotFor(s, &claims[0], runAt(noon, noon))
	made.UID, made.CreationTimestamp = "new", *metaTime(noon)
	if err := w.server.Create(t.Context(), made); err != nil {
		t.Fatal(err)
	}
	key := client.ObjectKeyFromObject(s)
	if _, err := w.process().Reconcile(t.Context(), reconcile.Request{NamespacedName: key}); err != nil {
		t.Fatal(err)
	}
	if err := w.server.Get(t.Context(), key, s); err != nil || s.Status.LastTrigger != "" {
		t.Errorf("%v, %+v", err, s.Status)
	}
	w.runUntilIdle(t, 1)
	if err := w.server.Get(t.Context(), key, s); err != nil || s.Status.LastTrigger != "go" {
		t.Errorf("%v, %+v", err, s.Status)
	}
}
