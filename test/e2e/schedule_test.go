package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/holdfast-io/holdfast/api/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/schedule"
	"github.com/holdfast-io/holdfast/test/cluster"
	"github.com/holdfast-io/holdfast/test/world"
)

// A scheduleWorld is an API server in which the test plays all controllers except the
// one of schedules.
type scheduleWorld struct {
	*world.World
	api client.Client
	// pendingPrefix keeps snapshots pending if the names of their claims start with it.
	pendingPrefix atomic.Pointer[string]
	// maxConcurrent is the largest number of pending snapshots of schedule "turns".
	maxConcurrent atomic.Int32
}

func newScheduleWorld(t *testing.T) *scheduleWorld {
	w := &scheduleWorld{World: &world.World{Cluster: cluster.NewAPIOnly(t)}}
	scheme := scheduleScheme(t)
	// No CRDs are installed yet: the controller waits for them.
	w.startController(t, scheme)
	w.SnapshotClient(t)
	var err error
	w.api, err = client.New(w.Config, client.Options{Scheme: scheme})
	must(t, err)
	w.playSnapshotController(t)
	return w
}

func scheduleScheme(t *testing.T) *runtime.Scheme {
	t.Helper()
	scheme := runtime.NewScheme()
	must(t, errors.Join(corev1.AddToScheme(scheme), snapshotv1.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)))
	return scheme
}

// startController runs the controller until the test ends.
func (w *scheduleWorld) startController(t *testing.T, scheme *runtime.Scheme) {
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ctrl.SetLogger(klog.Background())
	clock, kubeconfig := &kube.Clock{}, rest.CopyConfig(w.Config)
	kubeconfig.Wrap(clock.Wrap)
	m, err := ctrl.NewManager(kubeconfig, ctrl.Options{
		Scheme: scheme, Metrics: metricsserver.Options{BindAddress: "0"}, Controller: config.Controller{SkipNameValidation: ptr.To(true)},
	})
	must(t, err)
	events := kube.NewEvents(ctx, w.Client.CoreV1(), scheme, "snapshot-controller")
	must(t, schedule.SetupSnapshots(ctx, m, events, &schedule.Options{
		Workers: 2, RetryStart: 50 * time.Millisecond, RetryMax: time.Second, CRDCheckInterval: 50 * time.Millisecond, Clock: clock,
	}))
	ended := make(chan error)
	go func() { ended <- m.Start(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// playSnapshotController makes snapshots ready, as a snapshot-controller and a driver
// would. It recognizes claims by their names: a snapshot's name has a hash, which may
// contain "bad".
func (w *scheduleWorld) playSnapshotController(t *testing.T) {
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			w.updateSnapshots(ctx)
			select {
			case <-ctx.Done():
			case <-time.After(world.PollInterval):
			}
		}
	}()
	t.Cleanup(func() { stop(); <-ended })
}

func (w *scheduleWorld) updateSnapshots(ctx context.Context) {
	all := &snapshotv1.VolumeSnapshotList{}
	if w.api.List(ctx, all, client.InNamespace(w.Namespace)) != nil {
		return
	}
	under := slices.DeleteFunc(all.Items, func(v snapshotv1.VolumeSnapshot) bool {
		return v.Status != nil && (ptr.Deref(v.Status.ReadyToUse, false) || v.Status.Error != nil)
	})
	turns := 0
	for i := range under {
		v := &under[i]
		if v.Labels["schedule.holdfast.io/name"] == "turns" {
			turns++
			w.maxConcurrent.Store(max(w.maxConcurrent.Load(), int32(turns)))
		}
		claim := *v.Spec.Source.PersistentVolumeClaimName
		if hung := w.pendingPrefix.Load(); hung != nil && strings.HasPrefix(claim, *hung) {
			continue
		}
		v.Status = &snapshotv1.VolumeSnapshotStatus{ReadyToUse: ptr.To(true), CreationTime: ptr.To(metav1.Now())}
		if strings.HasSuffix(claim, "-bad") {
			v.Status = &snapshotv1.VolumeSnapshotStatus{Error: &snapshotv1.VolumeSnapshotError{Message: ptr.To("the driver is on fire")}}
		}
		_ = w.api.Status().Update(ctx, v) // It is retried.
	}
}

// createBoundClaims creates bound claims.
func (w *scheduleWorld) createBoundClaims(t *testing.T, app string, names ...string) {
	t.Helper()
	for _, name := range names {
		claim := w.createPendingClaim(t, app, name)
		claim.Status.Phase = corev1.ClaimBound
		must(t, w.api.Status().Update(t.Context(), claim))
	}
}

func (w *scheduleWorld) createPendingClaim(t *testing.T, app, name string) *corev1.PersistentVolumeClaim {
	t.Helper()
	claim := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.Namespace, Name: name, Labels: map[string]string{"app": app}},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		},
	}
	must(t, w.api.Create(t.Context(), claim))
	return claim
}

// newSchedule returns a schedule for the claims of an app, whose next run is far away.
func (w *scheduleWorld) newSchedule(app, name string) *v1alpha1.SnapshotSchedule {
	return &v1alpha1.SnapshotSchedule{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.Namespace, Name: name},
		Spec: v1alpha1.SnapshotScheduleSpec{
			Schedule: "0 0 29 2 *", ClaimSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": app}},
		},
	}
}

// updateSpec changes the spec of a schedule, and retries after a conflict.
func (w *scheduleWorld) updateSpec(t *testing.T, name string, change func(*v1alpha1.SnapshotScheduleSpec)) {
	t.Helper()
	world.Eventually(t, func(ctx context.Context) error {
		s := &v1alpha1.SnapshotSchedule{}
		if err := w.api.Get(ctx, client.ObjectKey{Namespace: w.Namespace, Name: name}, s); err != nil {
			return err
		}
		change(&s.Spec)
		return w.api.Update(ctx, s)
	})
}

// triggerAndWait triggers a run and waits until it has ended.
func (w *scheduleWorld) triggerAndWait(t *testing.T, name, value string) {
	t.Helper()
	w.updateSpec(t, name, func(s *v1alpha1.SnapshotScheduleSpec) { s.Trigger = value })
	w.waitStatus(t, name, func(s *v1alpha1.SnapshotScheduleStatus) bool { return s.LastTrigger == value })
}

// waitStatus waits until a schedule's status passes check, and returns it.
func (w *scheduleWorld) waitStatus(t *testing.T, name string, want func(*v1alpha1.SnapshotScheduleStatus) bool) *v1alpha1.SnapshotScheduleStatus {
	t.Helper()
	s := &v1alpha1.SnapshotSchedule{}
	world.Eventually(t, func(ctx context.Context) error {
		*s = v1alpha1.SnapshotSchedule{}
		if err := w.api.Get(ctx, client.ObjectKey{Namespace: w.Namespace, Name: name}, s); err != nil {
			return err
		}
		if s.Status.ObservedGeneration != s.Generation || !want(&s.Status) {
			text, _ := json.Marshal(s.Status)
			return fmt.Errorf("%s of generation %d", text, s.Generation)
		}
		return nil
	})
	return &s.Status
}

// hasReadyReason reports whether condition Ready has a reason.
func hasReadyReason(s *v1alpha1.SnapshotScheduleStatus, reason string) bool {
	c := meta.FindStatusCondition(s.Conditions, v1alpha1.Ready)
	return c != nil && c.Reason == reason
}

// snapshotsByClaim returns the names of a schedule's snapshots.
func (w *scheduleWorld) snapshotsByClaim(t *testing.T, schedule string) map[string][]string {
	t.Helper()
	all := &snapshotv1.VolumeSnapshotList{}
	must(t, w.api.List(t.Context(), all, client.InNamespace(w.Namespace), client.MatchingLabels{"schedule.holdfast.io/name": schedule}))
	claims := map[string][]string{}
	for _, v := range all.Items {
		claim := *v.Spec.Source.PersistentVolumeClaimName
		claims[claim] = append(claims[claim], v.Name)
	}
	return claims
}

func TestSnapshotSchedules(t *testing.T) {
	t.Parallel()
	w := newScheduleWorld(t)
	for name, test := range map[string]func(*testing.T, *scheduleWorld){
		"invalid schedules are rejected":                invalidIsRejected,
		"documented examples are accepted":              documentedIsAccepted,
		"a trigger takes a snapshot of every claim":     triggerTakesSnapshots,
		"a missed run is made up for":                   missedRunIsCaughtUp,
		"a failing claim blocks no other":               failingClaimBlocksNoOther,
		"maxConcurrent is kept":                         maxConcurrentIsKept,
		"a suspended schedule does nothing":             suspendedDoesNothing,
		"an invalid cron expression is reported":        invalidScheduleIsReported,
		"snapshots stay when their schedule is deleted": snapshotsStay,
	} {
		t.Run(name, func(t *testing.T) { test(t, w) })
	}
}

func invalidIsRejected(t *testing.T, w *scheduleWorld) {
	for want, change := range map[string]func(*v1alpha1.SnapshotSchedule){
		"metadata.name may have at most 63":     func(s *v1alpha1.SnapshotSchedule) { s.Name = strings.Repeat("x", 64) },
		"set the time zone in spec.timeZone":    func(s *v1alpha1.SnapshotSchedule) { s.Spec.Schedule = "TZ=Asia/Tokyo 0 2 * * *" },
		"@every has no fixed times":             func(s *v1alpha1.SnapshotSchedule) { s.Spec.Schedule = "@every 1h" },
		"use the name of a time zone":           func(s *v1alpha1.SnapshotSchedule) { s.Spec.TimeZone = "Local" },
		"jitter must be at most 24h":            func(s *v1alpha1.SnapshotSchedule) { s.Spec.Jitter = &metav1.Duration{Duration: 25 * time.Hour} },
		"spec.jitter in body should match":      func(s *v1alpha1.SnapshotSchedule) { s.Spec.Jitter = &metav1.Duration{Duration: -time.Hour} },
		"startingDeadline must be at least 10s": func(s *v1alpha1.SnapshotSchedule) { s.Spec.StartingDeadline = &metav1.Duration{Duration: time.Second} },
		"less than or equal to 1000":            func(s *v1alpha1.SnapshotSchedule) { s.Spec.MaxConcurrent = 1001 },
		"set maxCount, maxAge or both":          func(s *v1alpha1.SnapshotSchedule) { s.Spec.Retention = &v1alpha1.Retention{} },
		"greater than or equal to 1":            func(s *v1alpha1.SnapshotSchedule) { s.Spec.Retention = &v1alpha1.Retention{MaxCount: ptr.To[int32](0)} },
		"maxAge must be at least 1m": func(s *v1alpha1.SnapshotSchedule) {
			s.Spec.Retention = &v1alpha1.Retention{MaxAge: &metav1.Duration{Duration: time.Second}}
		},
		"labels that begin with schedule.holdfast.io/ are reserved": func(s *v1alpha1.SnapshotSchedule) {
			s.Spec.SnapshotTemplate.Labels = map[string]string{"schedule.holdfast.io/uid": "x"}
		},
		"snapshotClassName in body should be at least 1": func(s *v1alpha1.SnapshotSchedule) { s.Spec.SnapshotTemplate.SnapshotClassName = ptr.To("") },
	} {
		s := w.newSchedule("none", "nonsense")
		change(s)
		if err := w.api.Create(t.Context(), s); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("wanted %q, got %v", want, err)
		}
	}
}

// The first example of the documentation is a whole object, the others are parts of
// its spec.
func documentedIsAccepted(t *testing.T, w *scheduleWorld) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "tutorials", "schedules.md"))
	must(t, err)
	blocks := strings.Split(string(text), "```yaml\n")[1:]
	if len(blocks) < 2 {
		t.Fatalf("%d examples were found", len(blocks))
	}
	for i, block := range blocks {
		yamlText, _, _ := strings.Cut(block, "```")
		s := &v1alpha1.SnapshotSchedule{}
		must(t, yaml.UnmarshalStrict([]byte(yamlText), s))
		s.Namespace, s.Name = w.Namespace, fmt.Sprint("documented-", i)
		must(t, w.api.Create(t.Context(), s, client.DryRunAll))
	}
}

func triggerTakesSnapshots(t *testing.T, w *scheduleWorld) {
	w.createBoundClaims(t, "shop", "shop-a", "shop-b")
	w.createBoundClaims(t, "other", "other-a")
	w.createPendingClaim(t, "shop", "shop-pending")
	kept, all := w.newSchedule("shop", "keeps-one"), w.newSchedule("shop", "keeps-all")
	kept.Spec.Retention = &v1alpha1.Retention{MaxCount: ptr.To[int32](1)}
	kept.Spec.SnapshotTemplate.Labels = map[string]string{"team": "red"}
	must(t, errors.Join(w.api.Create(t.Context(), kept), w.api.Create(t.Context(), all)))
	w.triggerAndWait(t, "keeps-all", "one")
	w.triggerAndWait(t, "keeps-one", "one")
	before := w.snapshotsByClaim(t, "keeps-one")
	w.triggerAndWait(t, "keeps-one", "two")
	status := w.waitStatus(t, "keeps-one", func(*v1alpha1.SnapshotScheduleStatus) bool {
		now := w.snapshotsByClaim(t, "keeps-one")
		return len(now["shop-a"]) == 1 && len(now["shop-b"]) == 1
	})
	now := w.snapshotsByClaim(t, "keeps-one")
	if len(now) != 2 || now["shop-a"][0] == before["shop-a"][0] || len(w.snapshotsByClaim(t, "keeps-all")) != 2 {
		t.Errorf("there were %v, now %v, of the other %v", before, now, w.snapshotsByClaim(t, "keeps-all"))
	}
	if c := status.Claims; len(c) != 3 || c[0].LastReadySnapshot != now["shop-a"][0] || c[0].LastReadyTime == nil || c[0].Reason != "" || c[2].Reason != v1alpha1.NotBound {
		t.Errorf("%+v", c)
	}
	made := &snapshotv1.VolumeSnapshot{}
	must(t, w.api.Get(t.Context(), client.ObjectKey{Namespace: w.Namespace, Name: now["shop-a"][0]}, made))
	if made.Labels["team"] != "red" || len(made.OwnerReferences) > 0 {
		t.Errorf("%+v", made.ObjectMeta)
	}
	w.checkColumns(t, "keeps-one")
	w.waitMetric(t, "keeps-one", "shop-a")
	w.WaitEvent(t, "SnapshotSchedule/keeps-one", "", "SnapshotRunStarted", `requested by spec.trigger "two"`)
}

// checkColumns checks the columns of kubectl get.
func (w *scheduleWorld) checkColumns(t *testing.T, name string) {
	t.Helper()
	text, err := w.Client.CoreV1().RESTClient().Get().SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").
		AbsPath("/apis/holdfast.io/v1alpha1/namespaces", w.Namespace, "snapshotschedules", name).DoRaw(t.Context())
	must(t, err)
	table := &metav1.Table{}
	must(t, json.Unmarshal(text, table))
	shown := map[string]string{}
	for i, c := range table.ColumnDefinitions {
		if c.Priority == 0 {
			shown[c.Name] = fmt.Sprint(table.Rows[0].Cells[i])
		}
	}
	if shown["Schedule"] != "0 0 29 2 *" || shown["Ready"] != "True" || shown["Reason"] != "Scheduled" || shown["Last run"] == "<nil>" || !strings.HasSuffix(shown["Next run"], "-02-29T00:00:00Z") {
		t.Errorf("%v", shown)
	}
}

// waitMetric waits for the metric with the age of a claim's newest snapshot.
func (w *scheduleWorld) waitMetric(t *testing.T, schedule, claim string) {
	t.Helper()
	world.Eventually(t, func(context.Context) error {
		all, err := metrics.Registry.Gather()
		if err != nil {
			return err
		}
		for _, family := range all {
			for _, m := range family.GetMetric() {
				labels := fmt.Sprint(m.GetLabel())
				if family.GetName() == "holdfast_snapshotschedule_last_ready_age_seconds" && strings.Contains(labels, `"`+schedule+`"`) && strings.Contains(labels, `"`+claim+`"`) {
					return nil
				}
			}
		}
		return errors.New("the age of the snapshot is not among the metrics")
	})
}

func missedRunIsCaughtUp(t *testing.T, w *scheduleWorld) {
	w.createBoundClaims(t, "night", "night-a")
	s := w.newSchedule("night", "nightly")
	s.Spec.Suspend = true // Until it has a last run.
	must(t, w.api.Create(t.Context(), s))
	w.waitStatus(t, "nightly", func(is *v1alpha1.SnapshotScheduleStatus) bool { return hasReadyReason(is, v1alpha1.Suspended) })
	long := metav1.NewTime(time.Now().AddDate(0, 0, -9))
	world.Eventually(t, func(ctx context.Context) error { // The controller may reset the status before the suspension ends.
		if err := w.api.Get(ctx, client.ObjectKeyFromObject(s), s); err != nil {
			return err
		}
		s.Status.Plan = &v1alpha1.Plan{Schedule: "@daily", TimeZone: "UTC", Since: long}
		s.Status.LastScheduleTime = &long
		if err := w.api.Status().Update(ctx, s); err != nil {
			return err
		}
		s.Spec.Suspend, s.Spec.Schedule = false, "@daily"
		return w.api.Update(ctx, s)
	})
	is := w.waitStatus(t, "nightly", func(is *v1alpha1.SnapshotScheduleStatus) bool {
		return hasReadyReason(is, v1alpha1.Scheduled) && is.Run != nil
	})
	if n := len(w.snapshotsByClaim(t, "nightly")["night-a"]); n != 1 || time.Since(is.LastScheduleTime.Time) > 25*time.Hour {
		t.Errorf("%d snapshots, %+v", n, is)
	}
}

func failingClaimBlocksNoOther(t *testing.T, w *scheduleWorld) {
	w.createBoundClaims(t, "mixed", "mixed-a", "mixed-bad", "mixed-c")
	s := w.newSchedule("mixed", "mixed")
	s.Spec.MaxConcurrent, s.Spec.Trigger = 1, "go"
	must(t, w.api.Create(t.Context(), s))
	is := w.waitStatus(t, "mixed", func(is *v1alpha1.SnapshotScheduleStatus) bool {
		return hasReadyReason(is, v1alpha1.ClaimsFailing) && len(is.Claims) == 3 && is.Claims[0].LastReadySnapshot != "" && is.Claims[2].LastReadySnapshot != ""
	})
	if c := is.Claims[1]; c.Reason != v1alpha1.SnapshotFailed || !strings.Contains(c.Message, "on fire") || is.LastTrigger == "go" {
		t.Errorf("%+v", is)
	}
	w.WaitEvent(t, "SnapshotSchedule/mixed", "", v1alpha1.ClaimsFailing, "on fire")
}

func maxConcurrentIsKept(t *testing.T, w *scheduleWorld) {
	names := []string{"turn-a", "turn-b", "turn-c", "turn-d", "turn-e"}
	w.createBoundClaims(t, "turns", names...)
	s := w.newSchedule("turns", "turns")
	s.Spec.MaxConcurrent, s.Spec.Trigger = 2, "go"
	w.pendingPrefix.Store(ptr.To("turn-"))
	must(t, w.api.Create(t.Context(), s))
	w.waitStatus(t, "turns", func(is *v1alpha1.SnapshotScheduleStatus) bool {
		count := map[string]int{}
		for _, c := range is.Claims {
			count[c.Reason]++
		}
		return count[v1alpha1.Waiting] == 3 && count[v1alpha1.InProgress] == 2 && meta.IsStatusConditionTrue(is.Conditions, v1alpha1.Running)
	})
	w.pendingPrefix.Store(nil)
	w.waitStatus(t, "turns", func(is *v1alpha1.SnapshotScheduleStatus) bool {
		return is.LastTrigger == "go" && meta.IsStatusConditionFalse(is.Conditions, v1alpha1.Running)
	})
	if most := w.maxConcurrent.Load(); most != 2 {
		t.Errorf("%d were pending at the same time", most)
	}
}

func suspendedDoesNothing(t *testing.T, w *scheduleWorld) {
	w.createBoundClaims(t, "still", "still-a")
	s := w.newSchedule("still", "still")
	must(t, w.api.Create(t.Context(), s))
	w.triggerAndWait(t, "still", "one")
	w.triggerAndWait(t, "still", "two")
	w.updateSpec(t, "still", func(s *v1alpha1.SnapshotScheduleSpec) {
		s.Suspend, s.Trigger, s.Retention = true, "three", &v1alpha1.Retention{MaxCount: ptr.To[int32](1)}
	})
	w.waitStatus(t, "still", func(is *v1alpha1.SnapshotScheduleStatus) bool {
		return hasReadyReason(is, v1alpha1.Suspended) && is.NextRunTime == nil
	})
	if n := len(w.snapshotsByClaim(t, "still")["still-a"]); n != 2 {
		t.Errorf("the suspended schedule has %d snapshots", n)
	}
	w.updateSpec(t, "still", func(s *v1alpha1.SnapshotScheduleSpec) { s.Suspend = false })
	w.waitStatus(t, "still", func(is *v1alpha1.SnapshotScheduleStatus) bool {
		return is.LastTrigger == "three" && len(w.snapshotsByClaim(t, "still")["still-a"]) == 1
	})
}

func invalidScheduleIsReported(t *testing.T, w *scheduleWorld) {
	w.createBoundClaims(t, "unread", "unread-a")
	s := w.newSchedule("unread", "unreadable")
	s.Spec.Schedule = "61 * * * *"
	must(t, w.api.Create(t.Context(), s))
	w.waitStatus(t, "unreadable", func(is *v1alpha1.SnapshotScheduleStatus) bool {
		c := meta.FindStatusCondition(is.Conditions, v1alpha1.Ready)
		return c != nil && c.Reason == v1alpha1.Invalid && strings.Contains(c.Message, `spec.schedule "61 * * * *"`)
	})
	w.waitMetric(t, "unreadable", "unread-a")
	w.updateSpec(t, "unreadable", func(s *v1alpha1.SnapshotScheduleSpec) { s.Schedule = "0 0 29 2 *" })
	w.waitStatus(t, "unreadable", func(is *v1alpha1.SnapshotScheduleStatus) bool { return hasReadyReason(is, v1alpha1.Scheduled) })
}

func snapshotsStay(t *testing.T, w *scheduleWorld) {
	w.createBoundClaims(t, "gone", "gone-a")
	s := w.newSchedule("gone", "gone")
	s.Spec.Retention = &v1alpha1.Retention{MaxCount: ptr.To[int32](1)}
	must(t, w.api.Create(t.Context(), s))
	w.triggerAndWait(t, "gone", "one")
	must(t, w.api.Delete(t.Context(), s))
	heir := w.newSchedule("gone", "gone")
	heir.Spec.Retention = s.Spec.Retention
	must(t, w.api.Create(t.Context(), heir))
	w.triggerAndWait(t, "gone", "two")
	if n := len(w.snapshotsByClaim(t, "gone")["gone-a"]); n != 2 {
		t.Errorf("%d snapshots, want one of the deleted schedule and one of its namesake", n)
	}
}

// This test runs the program with a driver: snapshots of the schedule can be restored,
// old ones are deleted at the driver, and a killed process is replaced by the next.
func TestScheduleTakesAndDeletesSnapshots(t *testing.T) {
	t.Parallel()
	w := &scheduleWorld{World: world.New(t, csitest.Options{Record: true})}
	snapshots := w.SnapshotClient(t)
	var err error
	w.api, err = client.New(w.Config, client.Options{Scheme: scheduleScheme(t)})
	must(t, err)
	w.StartProvisioner(t)
	first := w.StartSnapshotController(t)
	w.StartSnapshotter(t)
	w.CreateClass(t, nil)
	w.CreateSnapshotClass(t, snapshots, nil)
	for _, name := range []string{"a", "b"} {
		w.CreateClaim(t, name, nil)
		w.WaitBound(t, name)
	}
	s := w.newSchedule("", "often")
	s.Spec.ClaimSelector, s.Spec.Retention = metav1.LabelSelector{}, &v1alpha1.Retention{MaxCount: ptr.To[int32](1)}
	s.Spec.SnapshotTemplate.SnapshotClassName = &w.Namespace
	must(t, w.api.Create(t.Context(), s))
	w.triggerAndWait(t, "often", "one")
	before := w.snapshotsByClaim(t, "often")
	first.Kill()
	w.updateSpec(t, "often", func(s *v1alpha1.SnapshotScheduleSpec) { s.Trigger = "two" })
	w.StartSnapshotController(t)
	w.triggerAndWait(t, "often", "two")
	world.Eventually(t, func(context.Context) error {
		now := w.snapshotsByClaim(t, "often")
		if n := len(w.Driver.Snapshots()); n != 2 || len(now["a"]) != 1 || len(now["b"]) != 1 {
			return fmt.Errorf("the driver has %d snapshots, the claims have %v", n, now)
		}
		return nil
	})
	for claim, names := range w.snapshotsByClaim(t, "often") {
		if names[0] == before[claim][0] {
			t.Errorf("claim %s still has %v", claim, names)
		}
		w.WaitSnapshotReady(t, snapshots, names[0])
		w.DeleteSnapshot(t, snapshots, names[0])
	}
	w.WaitNoSnapshotsLeft(t, snapshots)
	w.DeleteClaim(t, "a")
	w.DeleteClaim(t, "b")
	w.WaitNothingLeft(t)
}

// A claim that was deleted and created again, empty, has the name of the lost one. A
// pending snapshot of the lost claim must not be taken of the new one: as the newest
// snapshot of the lost claim it would cause the deletion of the last real one.
func TestScheduleKeepsSnapshotsOfReplacedClaim(t *testing.T) {
	t.Parallel()
	w := &scheduleWorld{World: world.New(t, csitest.Options{Record: true})}
	snapshots := w.SnapshotClient(t)
	var err error
	w.api, err = client.New(w.Config, client.Options{Scheme: scheduleScheme(t)})
	must(t, err)
	w.StartProvisioner(t)
	w.StartSnapshotController(t)
	w.StartSnapshotter(t)
	w.CreateClass(t, nil)
	w.CreateSnapshotClass(t, snapshots, nil)
	w.CreateClaim(t, "db", nil)
	w.WaitBound(t, "db")
	s := w.newSchedule("", "often")
	s.Spec.ClaimSelector, s.Spec.Retention = metav1.LabelSelector{}, &v1alpha1.Retention{MaxCount: ptr.To[int32](1)}
	s.Spec.SnapshotTemplate.SnapshotClassName = &w.Namespace
	must(t, w.api.Create(t.Context(), s))
	w.triggerAndWait(t, "often", "one")
	genuine := w.snapshotsByClaim(t, "often")["db"][0]

	late := w.Namespace + "-late" // This class does not exist yet.
	w.updateSpec(t, "often", func(s *v1alpha1.SnapshotScheduleSpec) {
		s.Trigger, s.SnapshotTemplate.SnapshotClassName = "two", &late
	})
	w.waitStatus(t, "often", func(is *v1alpha1.SnapshotScheduleStatus) bool {
		return len(is.Claims) == 1 && is.Claims[0].Reason == v1alpha1.SnapshotFailed && is.Claims[0].LastReadySnapshot == genuine
	})
	waiting := slices.DeleteFunc(w.snapshotsByClaim(t, "often")["db"], func(name string) bool { return name == genuine })[0]
	w.DeleteClaim(t, "db")
	w.WaitClaimGone(t, "db")
	heir := w.CreateClaim(t, "db", nil)
	w.WaitBound(t, "db")
	w.CreateSnapshotClass(t, snapshots, func(c *snapshotv1.VolumeSnapshotClass) { c.Name = late })
	w.triggerAndWait(t, "often", "three")

	w.WaitSnapshotError(t, snapshots, waiting, "claim db now has UID "+string(heir.UID))
	w.WaitSnapshotReady(t, snapshots, genuine)
	all := w.snapshotsByClaim(t, "often")["db"]
	if n := len(w.Driver.Snapshots()); n != 2 || len(all) != 3 {
		t.Errorf("the driver has %d snapshots, the schedule %v; want %s, one of the new claim, and %s, which is not taken", n, all, genuine, waiting)
	}
	for _, name := range all {
		w.DeleteSnapshot(t, snapshots, name)
	}
	w.WaitNoSnapshotsLeft(t, snapshots)
	w.DeleteClaim(t, "db")
	w.WaitNothingLeft(t)
}
