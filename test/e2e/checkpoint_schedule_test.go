package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/schedule"
	"github.com/holdfast-io/holdfast/test/cluster"
	"github.com/holdfast-io/holdfast/test/world"
)

// A checkpointScheduleWorld is an API server in which the test plays the kubelet, the operator
// of Checkpoints and the agent.
type checkpointScheduleWorld struct {
	*world.World
	api client.Client
}

func TestCheckpointSchedules(t *testing.T) {
	t.Parallel()
	w := &checkpointScheduleWorld{World: &world.World{Cluster: cluster.NewAPIOnly(t)}}
	scheme := runtime.NewScheme()
	must(t, errors.Join(corev1.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)))
	w.startController(t, scheme) // No CRDs are installed yet: it waits for them.
	world.InstallCheckpointCRDs(t, w.Cluster)
	var err error
	w.api, err = client.New(w.Config, client.Options{Scheme: scheme})
	must(t, err)
	// Pods need one, and no controller creates it.
	must(t, client.IgnoreAlreadyExists(w.api.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: w.Namespace, Name: "default"}})))
	for name, test := range map[string]func(*testing.T, *checkpointScheduleWorld){
		"invalid schedules are rejected":                   invalidCheckpointScheduleIsRejected,
		"a trigger checkpoints every running pod":          triggerCheckpointsPods,
		"a failed Checkpoint is reported":                  failedCheckpointIsReported,
		"a missed run is made up for, in its time zone":    missedCheckpointsAreCaughtUp,
		"a pod waits for its Checkpoint, or does not":      concurrencyPolicyIsKept,
		"old Checkpoints are deleted, by workload":         oldCheckpointsAreDeleted,
		"a suspended schedule creates and deletes nothing": suspendedCheckpointsNothing,
	} {
		t.Run(name, func(t *testing.T) { test(t, w) })
	}
}

// startController runs the controller until the test ends.
func (w *checkpointScheduleWorld) startController(t *testing.T, scheme *runtime.Scheme) {
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ctrl.SetLogger(klog.Background())
	clock, kubeconfig := &kube.Clock{}, rest.CopyConfig(w.Config)
	kubeconfig.Wrap(clock.Wrap)
	m, err := ctrl.NewManager(kubeconfig, ctrl.Options{
		Scheme: scheme, Metrics: metricsserver.Options{BindAddress: "0"}, Controller: config.Controller{SkipNameValidation: ptr.To(true)},
	})
	must(t, err)
	events := kube.NewEvents(ctx, w.Client.CoreV1(), scheme, "checkpoint-operator")
	must(t, schedule.SetupCheckpoints(ctx, m, events, &schedule.Options{
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

// createPods creates pods of an app that are in a phase.
func (w *checkpointScheduleWorld) createPods(t *testing.T, app string, phase corev1.PodPhase, names ...string) {
	t.Helper()
	for _, name := range names {
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: w.Namespace, Name: name, Labels: map[string]string{"app": app}},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "example.com/app"}}},
		}
		must(t, w.api.Create(t.Context(), pod))
		pod.Status.Phase = phase
		must(t, w.api.Status().Update(t.Context(), pod))
	}
}

// create creates a schedule for the pods of an app, whose next run is far away, with changes.
func (w *checkpointScheduleWorld) create(t *testing.T, app string, change func(*v1alpha1.CheckpointScheduleSpec)) {
	t.Helper()
	s := &v1alpha1.CheckpointSchedule{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.Namespace, Name: app},
		Spec: v1alpha1.CheckpointScheduleSpec{
			Schedule: "0 0 29 2 *", PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": app}},
			CheckpointTemplate: v1alpha1.CheckpointTemplate{Storage: &v1alpha1.CheckpointStorage{Backend: v1alpha1.BackendLocal}},
		},
	}
	change(&s.Spec)
	must(t, w.api.Create(t.Context(), s))
}

// patchSpec changes fields of a schedule's spec.
func (w *checkpointScheduleWorld) patchSpec(t *testing.T, name, fields string) {
	t.Helper()
	s := &v1alpha1.CheckpointSchedule{ObjectMeta: metav1.ObjectMeta{Namespace: w.Namespace, Name: name}}
	must(t, w.api.Patch(t.Context(), s, client.RawPatch(types.MergePatchType, []byte(`{"spec":`+fields+`}`))))
}

// waitStatus waits until a schedule's status is as wanted.
func (w *checkpointScheduleWorld) waitStatus(t *testing.T, name string, want func(*v1alpha1.CheckpointScheduleStatus) bool) *v1alpha1.CheckpointScheduleStatus {
	t.Helper()
	s := &v1alpha1.CheckpointSchedule{}
	world.Eventually(t, func(ctx context.Context) error {
		*s = v1alpha1.CheckpointSchedule{}
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

// checkpointsOf waits until a schedule has a number of Checkpoints, and returns them.
func (w *checkpointScheduleWorld) checkpointsOf(t *testing.T, schedule string, n int) []v1alpha1.Checkpoint {
	t.Helper()
	all := &v1alpha1.CheckpointList{}
	world.Eventually(t, func(ctx context.Context) error {
		*all = v1alpha1.CheckpointList{}
		err := w.api.List(ctx, all, client.InNamespace(w.Namespace), client.MatchingLabels{"schedule.holdfast.io/name": schedule})
		if err == nil && len(all.Items) != n {
			err = fmt.Errorf("schedule %s has %d Checkpoints, want %d", schedule, len(all.Items), n)
		}
		return err
	})
	return all.Items
}

// finish writes what the operator and an agent write about a Checkpoint, as one of a Deployment
// with the name of the schedule: that it is ready or, with a reason, that it failed.
func (w *checkpointScheduleWorld) finish(t *testing.T, c *v1alpha1.Checkpoint, failure string) {
	t.Helper()
	ready := metav1.Condition{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonCompleted}
	if failure != "" {
		ready.Status, ready.Reason, ready.Message = metav1.ConditionFalse, failure, "the test says so"
		meta.SetStatusCondition(&c.Status.Conditions, metav1.Condition{Type: v1alpha1.ConditionFailed, Status: metav1.ConditionTrue, Reason: failure})
	}
	meta.SetStatusCondition(&c.Status.Conditions, ready)
	c.Status.PodUID, c.Status.NodeName = types.UID(c.Labels["schedule.holdfast.io/pod-uid"]), "node"
	c.Status.Workload = &v1alpha1.Workload{APIVersion: "apps/v1", Kind: "Deployment", Name: c.Labels["schedule.holdfast.io/name"]}
	c.Status.CheckpointTime = ptr.To(metav1.NowMicro())
	must(t, w.api.Status().Update(t.Context(), c))
}

// runNow triggers a run, finishes its Checkpoints and waits for the end of the run.
func (w *checkpointScheduleWorld) runNow(t *testing.T, name, trigger string, total int) []v1alpha1.Checkpoint {
	t.Helper()
	w.patchSpec(t, name, fmt.Sprintf(`{"trigger":%q}`, trigger))
	all := w.checkpointsOf(t, name, total)
	for i := range all {
		if len(all[i].Status.Conditions) == 0 {
			w.finish(t, &all[i], "")
		}
	}
	w.waitStatus(t, name, func(s *v1alpha1.CheckpointScheduleStatus) bool { return s.LastTrigger == trigger })
	return all
}

func hasReason(s *v1alpha1.CheckpointScheduleStatus, reason string) bool {
	c := meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionReady)
	return c != nil && c.Reason == reason
}

func invalidCheckpointScheduleIsRejected(t *testing.T, w *checkpointScheduleWorld) {
	for want, change := range map[string]func(*v1alpha1.CheckpointSchedule){
		"metadata.name may have at most 63":  func(s *v1alpha1.CheckpointSchedule) { s.Name = strings.Repeat("x", 64) },
		"set the time zone in spec.timeZone": func(s *v1alpha1.CheckpointSchedule) { s.Spec.Schedule = "TZ=Asia/Tokyo 0 2 * * *" },
		"@every has no fixed times":          func(s *v1alpha1.CheckpointSchedule) { s.Spec.Schedule = "@every 1h" },
		"use the name of a time zone":        func(s *v1alpha1.CheckpointSchedule) { s.Spec.TimeZone = "Local" },
		"jitter must be at most 24h":         func(s *v1alpha1.CheckpointSchedule) { s.Spec.Jitter = &metav1.Duration{Duration: 25 * time.Hour} },
		"startingDeadline must be at least 10s": func(s *v1alpha1.CheckpointSchedule) {
			s.Spec.StartingDeadline = &metav1.Duration{Duration: time.Second}
		},
		`supported values: "Forbid", "Allow"`: func(s *v1alpha1.CheckpointSchedule) { s.Spec.ConcurrencyPolicy = "Replace" },
		"maxAge must be at least 1m": func(s *v1alpha1.CheckpointSchedule) {
			s.Spec.Retention = &v1alpha1.CheckpointScheduleRetention{MaxAge: &metav1.Duration{Duration: time.Second}}
		},
		"set checkpointTemplate.storage with a backend":   func(s *v1alpha1.CheckpointSchedule) { s.Spec.CheckpointTemplate.Storage = nil },
		"storage.backend s3 needs the section storage.s3": func(s *v1alpha1.CheckpointSchedule) { s.Spec.CheckpointTemplate.Storage.Backend = v1alpha1.BackendS3 },
		"maxFrozenTime must be between": func(s *v1alpha1.CheckpointSchedule) {
			s.Spec.CheckpointTemplate.MaxFrozenTime = &metav1.Duration{Duration: 2 * time.Hour}
		},
		"labels that begin with schedule.holdfast.io/ are reserved": func(s *v1alpha1.CheckpointSchedule) {
			s.Spec.CheckpointTemplate.Labels = map[string]string{"schedule.holdfast.io/uid": "x"}
		},
	} {
		s := &v1alpha1.CheckpointSchedule{
			ObjectMeta: metav1.ObjectMeta{Namespace: w.Namespace, Name: "invalid"},
			Spec: v1alpha1.CheckpointScheduleSpec{
				Schedule: "@daily", CheckpointTemplate: v1alpha1.CheckpointTemplate{Storage: &v1alpha1.CheckpointStorage{Backend: v1alpha1.BackendLocal}},
			},
		}
		change(s)
		if err := w.api.Create(t.Context(), s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func triggerCheckpointsPods(t *testing.T, w *checkpointScheduleWorld) {
	w.createPods(t, "run", corev1.PodRunning, "run-a", "run-b")
	w.createPods(t, "run", corev1.PodSucceeded, "run-ended")
	w.createPods(t, "other", corev1.PodRunning, "run-other")
	w.create(t, "run", func(s *v1alpha1.CheckpointScheduleSpec) { s.CheckpointTemplate.ContainerName = v1alpha1.AllContainers })
	all := w.runNow(t, "run", "one", 2)
	for i, pod := range []string{"run-a", "run-b"} {
		if c := all[i]; c.Spec.Target.PodName != pod || c.Spec.Target.ContainerName != "*" || len(c.OwnerReferences) > 0 {
			t.Errorf("%+v", c)
		}
	}
	status := w.waitStatus(t, "run", func(s *v1alpha1.CheckpointScheduleStatus) bool { return hasReason(s, "Scheduled") })
	if p := status.Pods; len(p) != 3 || p[0].LastReadyCheckpoint != all[0].Name || p[2].Reason != v1alpha1.ReasonPodNotRunning {
		t.Errorf("%+v", p)
	}
}

func failedCheckpointIsReported(t *testing.T, w *checkpointScheduleWorld) {
	w.createPods(t, "failing", corev1.PodRunning, "failing-a", "failing-b")
	w.create(t, "failing", func(s *v1alpha1.CheckpointScheduleSpec) { s.Trigger = "one" })
	all := w.checkpointsOf(t, "failing", 2)
	w.finish(t, &all[0], v1alpha1.ReasonContainerUnknown)
	w.finish(t, &all[1], "")
	status := w.waitStatus(t, "failing", func(s *v1alpha1.CheckpointScheduleStatus) bool { return hasReason(s, v1alpha1.ReasonPodsFailing) })
	if p := status.Pods[0]; p.Reason != v1alpha1.ReasonFailed || !strings.Contains(p.Message, all[0].Name) || !strings.Contains(p.Message, "the test says so") || status.LastTrigger != "" {
		t.Errorf("%+v", status)
	}
}

// The operator was down for nine days: it catches up on the last run in the schedule's time
// zone.
func missedCheckpointsAreCaughtUp(t *testing.T, w *checkpointScheduleWorld) {
	w.createPods(t, "missed", corev1.PodRunning, "missed-a")
	w.create(t, "missed", func(s *v1alpha1.CheckpointScheduleSpec) { s.Suspend = true }) // Until it has a last run.
	w.waitStatus(t, "missed", func(s *v1alpha1.CheckpointScheduleStatus) bool { return hasReason(s, "Suspended") })
	zone, err := time.LoadLocation("Asia/Kathmandu") // It is 5:45 ahead of UTC.
	must(t, err)
	long, s := metav1.NewTime(time.Now().AddDate(0, 0, -9)), &v1alpha1.CheckpointSchedule{}
	world.Eventually(t, func(ctx context.Context) error { // The controller may reset the status before the suspension ends.
		if err := w.api.Get(ctx, client.ObjectKey{Namespace: w.Namespace, Name: "missed"}, s); err != nil {
			return err
		}
		s.Status.Plan = &v1alpha1.SchedulePlan{Schedule: "30 2 * * *", TimeZone: zone.String(), Since: long}
		s.Status.LastScheduleTime = &long
		if err := w.api.Status().Update(ctx, s); err != nil {
			return err
		}
		s.Spec.Suspend, s.Spec.Schedule, s.Spec.TimeZone = false, "30 2 * * *", zone.String()
		return w.api.Update(ctx, s)
	})
	status := w.waitStatus(t, "missed", func(s *v1alpha1.CheckpointScheduleStatus) bool {
		return hasReason(s, "Scheduled") && s.Run != nil
	})
	w.checkpointsOf(t, "missed", 1)
	if last := status.LastScheduleTime; last.In(zone).Format("15:04") != "02:30" || time.Since(last.Time) > 25*time.Hour {
		t.Errorf("%+v", status)
	}
}

func concurrencyPolicyIsKept(t *testing.T, w *checkpointScheduleWorld) {
	w.createPods(t, "turns", corev1.PodRunning, "turns-a")
	w.create(t, "turns", func(s *v1alpha1.CheckpointScheduleSpec) { s.Trigger = "one" })
	w.checkpointsOf(t, "turns", 1)
	w.patchSpec(t, "turns", `{"trigger":"two"}`)
	w.waitStatus(t, "turns", func(s *v1alpha1.CheckpointScheduleStatus) bool {
		return len(s.Pods) == 1 && s.Pods[0].Reason == "Blocked"
	})
	w.patchSpec(t, "turns", `{"concurrencyPolicy":"Allow"}`)
	for _, c := range w.checkpointsOf(t, "turns", 2) {
		w.finish(t, &c, "")
	}
	w.waitStatus(t, "turns", func(s *v1alpha1.CheckpointScheduleStatus) bool { return s.LastTrigger == "two" })
}

func oldCheckpointsAreDeleted(t *testing.T, w *checkpointScheduleWorld) {
	w.createPods(t, "old", corev1.PodRunning, "old-a")
	w.create(t, "old", func(s *v1alpha1.CheckpointScheduleSpec) {
		s.Retention = &v1alpha1.CheckpointScheduleRetention{MaxCount: ptr.To[int32](1), MaxFailedCount: ptr.To[int32](0)}
		s.Trigger = "zero"
	})
	failed := w.checkpointsOf(t, "old", 1)
	w.finish(t, &failed[0], v1alpha1.ReasonContainerUnknown)
	w.checkpointsOf(t, "old", 0)
	first := w.runNow(t, "old", "one", 1)
	// Another pod of the workload takes the place of the first one.
	must(t, w.api.Delete(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: w.Namespace, Name: "old-a"}}, client.GracePeriodSeconds(0)))
	w.createPods(t, "old", corev1.PodRunning, "old-b")
	w.runNow(t, "old", "two", 2)
	if left := w.checkpointsOf(t, "old", 1); left[0].Spec.Target.PodName != "old-b" || left[0].Name == first[0].Name {
		t.Errorf("%+v", left)
	}
}

func suspendedCheckpointsNothing(t *testing.T, w *checkpointScheduleWorld) {
	w.createPods(t, "off", corev1.PodRunning, "off-a")
	w.create(t, "off", func(s *v1alpha1.CheckpointScheduleSpec) { s.Suspend, s.Trigger = true, "one" })
	if status := w.waitStatus(t, "off", func(s *v1alpha1.CheckpointScheduleStatus) bool { return hasReason(s, "Suspended") }); status.Run != nil {
		t.Errorf("%+v", status)
	}
	w.checkpointsOf(t, "off", 0)
	w.patchSpec(t, "off", `{"suspend":false}`)
	w.checkpointsOf(t, "off", 1)
}
