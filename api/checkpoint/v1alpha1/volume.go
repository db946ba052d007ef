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

// FinalizerVolume keeps a Checkpoint until the pod that mounts its claim is gone, and the
// claim if it was created for the Checkpoint.
const FinalizerVolume = "checkpoint.example.com/volume"

// ReasonVolumePending is the reason of the condition Ready while the volume of a
// Checkpoint is not mounted.
const ReasonVolumePending = "VolumePending"
