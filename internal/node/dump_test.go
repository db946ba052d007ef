package node

import (
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-io/holdfast/internal/archive"
	"github.com/holdfast-io/holdfast/internal/runtime"
)

func TestFrozenBudget(t *testing.T) {
	probe := func(failures, period, timeout int32) *corev1.Probe {
		return &corev1.Probe{FailureThreshold: failures, PeriodSeconds: period, TimeoutSeconds: timeout}
	}
	for name, row := range map[string]struct {
		main, log *corev1.Probe
		limit     *metav1.Duration
		want      budget
	}{
		"without a probe there is no limit":            {want: budget{}},
		"all failures but the first, and a timeout":    {main: probe(3, 10, 1), want: budget{21 * time.Second, "main"}},
		"a single failure is the end":                  {main: probe(1, 10, 2), want: budget{2 * time.Second, "main"}},
		"a container that is not frozen has no say":    {log: probe(1, 1, 1), want: budget{}},
		"the user permits less than the probe":         {main: probe(3, 10, 1), limit: &metav1.Duration{Duration: time.Second}, want: budget{time.Second, ""}},
		"the user permits more than the probe":         {main: probe(1, 10, 1), limit: &metav1.Duration{Duration: time.Minute}, want: budget{time.Second, "main"}},
		"the user's limit holds also without a probe":  {limit: &metav1.Duration{Duration: time.Minute}, want: budget{time.Minute, ""}},
		"values that the API server defaults are safe": {main: probe(0, 0, 0), want: budget{time.Second, "main"}},
	} {
		t.Run(name, func(t *testing.T) {
			pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{
				{Name: "main", LivenessProbe: row.main}, {Name: "log", LivenessProbe: row.log},
			}}}
			if got := frozenBudget(pod, row.limit, []runtime.Container{{Name: "main"}}); got != row.want {
				t.Errorf("got %+v, want %+v", got, row.want)
			}
		})
	}
}

func TestATimeoutNamesTheLivenessProbe(t *testing.T) {
	late := runtime.Errorf(runtime.Timeout, "it would take 5s")
	got := budget{2 * time.Second, "main"}.explain(late)
	if runtime.ReasonOf(got) != runtime.LivenessBudgetTooSmall || !strings.Contains(got.Error(), "container main permits only 2s") || runtime.IsRetryable(got) {
		t.Errorf("got %v with reason %s", got, runtime.ReasonOf(got))
	}
	if got := (budget{2 * time.Second, ""}).explain(late); !errors.Is(got, late) || runtime.ReasonOf(got) != runtime.Timeout {
		t.Errorf("the user's own limit is blamed on a probe: %v", got)
	}
	if other := runtime.Errorf(runtime.Busy, "it is paused"); runtime.ReasonOf(budget{2 * time.Second, "main"}.explain(other)) != runtime.Busy {
		t.Error("another failure is blamed on the probe")
	}
}

// The engine runc does not know the digest of an image, and the kubelet does.
func TestTheDigestOfTheImageIsThatOfThePodsStatus(t *testing.T) {
	pod := &corev1.Pod{Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{
		{Name: "log", ContainerID: "containerd://a", ImageID: "log@sha256:11", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}},
		{Name: "main", ContainerID: "containerd://b", ImageID: "app@sha256:22", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}},
	}}}
	id, image := runningContainer(pod, "main")
	if id != "b" || image != "app@sha256:22" {
		t.Fatalf("the container is %q of image %q", id, image)
	}
	for reported, want := range map[string]string{"": "app@sha256:22", "app@sha256:33": "app@sha256:33"} {
		c := newCheckpoint()
		c.Status.Containers[0].ImageDigest = image // as it was recorded before the dump
		recordContainer(c, runtime.Report{Container: runtime.Container{Name: "main"}, ImageDigest: reported}, archive.Result{})
		if got := c.Status.Containers[0].ImageDigest; got != want {
			t.Errorf("the engine reports %q: got %q, want %q", reported, got, want)
		}
	}
}
