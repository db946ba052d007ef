// Package ephemeral says where the volumes are that end with a pod: its emptyDir volumes and
// its /dev/shm. A checkpoint has their files, because the memory of a process refers to them.
//
// The OCI runtime wrapper uses it, so it imports only the standard library.
package ephemeral

import "path/filepath"

// SharedMemory stands for the pod's /dev/shm among the names of emptyDir volumes.
const SharedMemory = "/dev/shm"

// FileName returns the name of the tar archive with the files of a volume, among the files of
// a checkpoint. Unlike in that of the root file system, names in it that begin with .wh. are
// plain names.
func FileName(volume string) string {
	if volume == SharedMemory {
		volume = "dev_shm" // No volume has such a name.
	}
	return "volumes/" + volume + ".tar"
}

// Dir returns the directory of an emptyDir volume in the kubelet's directory (pkg/volume/emptydir
// and pkg/volume/util of Kubernetes).
func Dir(kubeletDir, podUID, volume string) string {
	return filepath.Join(kubeletDir, "pods", podUID, "volumes", "kubernetes.io~empty-dir", volume)
}
