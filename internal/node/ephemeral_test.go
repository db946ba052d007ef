package node

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/runtime"
)

func TestAVolumeIsSavedWithTheFirstContainerThatHasIt(t *testing.T) {
	t.Parallel()
	emptyDir := corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}
	pod := &corev1.Pod{Spec: corev1.PodSpec{
		Volumes: []corev1.Volume{{Name: "a", VolumeSource: emptyDir}, {Name: "b", VolumeSource: emptyDir}, {Name: "c", VolumeSource: emptyDir}},
		Containers: []corev1.Container{
			{Name: "first", VolumeMounts: []corev1.VolumeMount{{Name: "a"}}},
			{Name: "second", VolumeMounts: []corev1.VolumeMount{{Name: "a"}, {Name: "b"}}},
			{Name: "not checkpointed", VolumeMounts: []corev1.VolumeMount{{Name: "c"}}},
		},
	}}
	pod.UID = "uid"
	in := "/kubelet/pods/uid/volumes/kubernetes.io~empty-dir/"
	want := []runtime.Volume{
		{Container: "first", Name: "a", Dir: in + "a"}, {Container: "first", Name: "/dev/shm"},
		{Container: "second", Name: "b", Dir: in + "b"},
	}
	if diff := cmp.Diff(want, ephemeralVolumes(pod, []runtime.Container{{Name: "first"}, {Name: "second"}}, "/kubelet")); diff != "" {
		t.Error(diff)
	}
}

// A reportedDump only has a report.
type reportedDump struct {
	runtime.Dump
	report runtime.Report
}

func (d reportedDump) Report() runtime.Report { return d.report }

func TestWhatAnEngineCannotSaveIsSaid(t *testing.T) {
	t.Parallel()
	none := resource.MustParse("0")
	for name, test := range map[string]struct {
		saves bool
		limit *resource.Quantity
		want  string
	}{
		"an engine that saves volumes":    {saves: true},
		"one that does not":               {want: "engine kubelet cannot save those"},
		"volumes that nobody wants saved": {limit: &none},
	} {
		c := &v1alpha1.Checkpoint{Status: v1alpha1.CheckpointStatus{EphemeralVolumes: &v1alpha1.EphemeralVolumes{SizeLimit: test.limit}}}
		d := reportedDump{report: runtime.Report{Engine: "kubelet", Capability: runtime.Capability{Volumes: test.saves}}}
		got := leftOut(c, []runtime.Dump{d})
		if test.want == "" && got != "" || !strings.Contains(got, test.want) {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}
