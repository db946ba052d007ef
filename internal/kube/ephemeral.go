package kube

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-io/holdfast/internal/ephemeral"
)

// EphemeralVolumes returns the names of the pod's emptyDir volumes that a container has
// mounted, and [ephemeral.SharedMemory] if it has the /dev/shm of the pod. Huge pages cannot
// be written like files, and with hostIPC /dev/shm is the node's.
func EphemeralVolumes(pod *corev1.Pod, container string) []string {
	mounts, found := volumeMounts(pod, container)
	if !found {
		return nil
	}
	var names []string
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		isMounted := slices.ContainsFunc(mounts, func(m corev1.VolumeMount) bool { return m.Name == v.Name })
		if v.EmptyDir != nil && isMounted && !strings.HasPrefix(string(v.EmptyDir.Medium), string(corev1.StorageMediumHugePages)) {
			names = append(names, v.Name)
		}
	}
	hidesSharedMemory := slices.ContainsFunc(mounts, func(m corev1.VolumeMount) bool { return m.MountPath == ephemeral.SharedMemory })
	if !pod.Spec.HostIPC && !hidesSharedMemory {
		names = append(names, ephemeral.SharedMemory)
	}
	return names
}

// volumeMounts returns those of a container, and whether the pod has that container.
func volumeMounts(pod *corev1.Pod, container string) ([]corev1.VolumeMount, bool) {
	for _, all := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range all {
			if all[i].Name == container {
				return all[i].VolumeMounts, true
			}
		}
	}
	for i := range pod.Spec.EphemeralContainers {
		if c := &pod.Spec.EphemeralContainers[i]; c.Name == container {
			return c.VolumeMounts, true
		}
	}
	return nil, false
}
