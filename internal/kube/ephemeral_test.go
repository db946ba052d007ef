package kube_test

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-io/holdfast/internal/kube"
)

func TestEphemeralVolumes(t *testing.T) {
	t.Parallel()
	emptyDir := func(name string, medium corev1.StorageMedium) corev1.Volume {
		return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: medium}}}
	}
	claim := corev1.Volume{Name: "claim", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{}}}
	volumes := []corev1.Volume{
		emptyDir("disk", ""), emptyDir("ram", corev1.StorageMediumMemory), emptyDir("huge", "HugePages-2Mi"), emptyDir("other", ""), claim,
	}
	mount := func(name, path string) corev1.VolumeMount { return corev1.VolumeMount{Name: name, MountPath: path} }
	tests := map[string]struct {
		mounts  []corev1.VolumeMount
		hostIPC bool
		want    []string
	}{
		"a container without volumes has the /dev/shm of the pod": {want: []string{"/dev/shm"}},
		"emptyDir volumes count if they are mounted, however often": {
			mounts: []corev1.VolumeMount{mount("disk", "/a"), mount("disk", "/b"), mount("ram", "/c")},
			want:   []string{"disk", "ram", "/dev/shm"},
		},
		"claims and huge pages do not count": {
			mounts: []corev1.VolumeMount{mount("claim", "/a"), mount("huge", "/b")}, want: []string{"/dev/shm"},
		},
		"a volume at /dev/shm hides that of the pod": {
			mounts: []corev1.VolumeMount{mount("ram", "/dev/shm")}, want: []string{"ram"},
		},
		"with hostIPC /dev/shm is the node's": {hostIPC: true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pod := &corev1.Pod{Spec: corev1.PodSpec{
				Volumes: volumes, HostIPC: test.hostIPC,
				Containers: []corev1.Container{{Name: "main", VolumeMounts: test.mounts}},
			}}
			if got := kube.EphemeralVolumes(pod, "main"); !slices.Equal(got, test.want) {
				t.Errorf("%v, want %v", got, test.want)
			}
		})
	}
}
