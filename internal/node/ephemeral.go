package node

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-io/holdfast/internal/ephemeral"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/runtime"
)

// ephemeralVolumes returns the volumes that end with the pod and that the containers have
// mounted, each in the first container that has it.
func ephemeralVolumes(pod *corev1.Pod, containers []runtime.Container, kubeletDir string) []runtime.Volume {
	var volumes []runtime.Volume
	for _, c := range containers {
		for _, name := range kube.EphemeralVolumes(pod, c.Name) {
			if slices.ContainsFunc(volumes, func(v runtime.Volume) bool { return v.Name == name }) {
				continue
			}
			volume := runtime.Volume{Container: c.Name, Name: name}
			if name != ephemeral.SharedMemory {
				volume.Dir = ephemeral.Dir(kubeletDir, string(pod.UID), name)
			}
			volumes = append(volumes, volume)
		}
	}
	return volumes
}
