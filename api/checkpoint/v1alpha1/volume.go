package v1alpha1

import (
	"k8s.io/apimachinery/pkg/types"
)

// CheckpointVolume is the volume of a Checkpoint with the backend pvc.
type CheckpointVolume struct {
	// claimName is the name of the PersistentVolumeClaim, in the namespace of the Checkpoint. One that is created from a
	// template is recorded before it exists. It is empty when that claim is deleted because the Checkpoint has failed.
	// +optional
	ClaimName string `json:"claimName,omitempty"`

	// podName is the name of the pod that mounts the claim on the node, in the namespace of the Checkpoint. It is recorded
	// before the pod exists, and empty when the pod is gone.
	// +optional
	PodName string `json:"podName,omitempty"`

	// podUID is the UID of that pod while it runs: then the volume is mounted on the node nodeName.
	// +optional
	PodUID types.UID `json:"podUID,omitempty"`

	// claimUID is the UID of the claim, and volumeName the name of its PersistentVolume, when the volume was mounted last.
	// +optional
	ClaimUID types.UID `json:"claimUID,omitempty"`
	// +optional
	VolumeName string `json:"volumeName,omitempty"`
}

// A RestoreMount is the volume of a Checkpoint on the node of a pod that is restored from it.
// The agent of that node asks for it, the checkpoint-operator mounts it by another pod, and
// unmounts it when the outcome of the restore is on record.
type RestoreMount struct {
	// podUID, podNamespace and podName are the pod that is restored, and nodeName is its node.
	// +required
	PodUID types.UID `json:"podUID"`
	// +required
	PodNamespace string `json:"podNamespace"`
	// +required
	PodName string `json:"podName"`
	// +required
	NodeName string `json:"nodeName"`

	// request is the value of the pod's annotation that asks for the restore.
	// +required
	Request string `json:"request"`

	// mountedBy is the UID of the pod that mounts the volume on the node, while it runs.
	// +optional
	MountedBy types.UID `json:"mountedBy,omitempty"`

	// message says why the volume is not mounted.
	// +optional
	Message string `json:"message,omitempty"`
}

// MaxRestoreMounts is how many pods may be restored from the volume of a Checkpoint at a time.
const MaxRestoreMounts = 64

// FinalizerVolume keeps a Checkpoint until the pod that mounts its claim is gone, and the
// claim if it was created for the Checkpoint.
const FinalizerVolume = "checkpoint.example.com/volume"

// ReasonVolumePending is the reason of the condition Ready while the volume of a
// Checkpoint is not mounted.
const ReasonVolumePending = "VolumePending"
