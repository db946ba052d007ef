package v1alpha1

import corev1 "k8s.io/api/core/v1"

// RestoreOptions say how pods are restored from Checkpoints.
type RestoreOptions struct {
	// match is how much pod and node have to be like those of the Checkpoint. Strict compares image, command, user,
	// environment, mounts and limits, and the node's CPU, kernel and CRI runtime. Compatible compares only what CRIU cannot
	// restore otherwise.
	// +optional
	// +kubebuilder:default=Strict
	// +kubebuilder:validation:Enum=Strict;Compatible
	Match RestoreMatch `json:"match,omitempty"`

	// onFailure is what becomes of a container that cannot be restored. With Fail it does not start. With Retry it is
	// restored again whenever the kubelet starts it. With StartFresh it starts without the state of the Checkpoint.
	// +optional
	// +kubebuilder:default=Fail
	// +kubebuilder:validation:Enum=Fail;Retry;StartFresh
	OnFailure RestoreFailure `json:"onFailure,omitempty"`

	// onRestart is what becomes of a restored container that ends and is started again. With StartFresh it starts
	// without the state of the Checkpoint, with Restore it is restored again.
	// +optional
	// +kubebuilder:default=StartFresh
	// +kubebuilder:validation:Enum=StartFresh;Restore
	OnRestart RestoreRestart `json:"onRestart,omitempty"`
}

// RestoreMatch is how much containers have to be alike.
type RestoreMatch string

// The values of spec.restore.match.
const (
	MatchStrict     RestoreMatch = "Strict"
	MatchCompatible RestoreMatch = "Compatible"
)

// RestoreFailure is what becomes of a container that cannot be restored.
type RestoreFailure string

// The values of spec.restore.onFailure.
const (
	OnFailureFail       RestoreFailure = "Fail"
	OnFailureRetry      RestoreFailure = "Retry"
	OnFailureStartFresh RestoreFailure = "StartFresh"
)

// RestoreRestart is what becomes of a restored container that is started again.
type RestoreRestart string

// The values of spec.restore.onRestart.
const (
	OnRestartStartFresh RestoreRestart = "StartFresh"
	OnRestartRestore    RestoreRestart = "Restore"
)

// RestoreCounts says how many restores from a Checkpoint have ended. One whose agent died at
// that moment may be missing.
type RestoreCounts struct {
	// succeeded is how many pods were restored.
	// +optional
	Succeeded int64 `json:"succeeded,omitempty"`
	// failed is how many could not be.
	// +optional
	Failed int64 `json:"failed,omitempty"`
}

// Annotations of pods.
const (
	// AnnotationRestoreFrom asks that the pod is restored from a Checkpoint: NAME or
	// NAMESPACE/NAME.
	AnnotationRestoreFrom = "checkpoint.example.com/restore-from"
	// AnnotationObservedRestoreFrom is the value of AnnotationRestoreFrom whose outcome the
	// condition Restored has. The agent sets it: the same value does not restore twice.
	AnnotationObservedRestoreFrom = "checkpoint.example.com/observed-restore-from"
)

// PodRestored is a condition of pods: True when all containers of the Checkpoint are
// restored, False while they are not, with the reason.
const PodRestored corev1.PodConditionType = "checkpoint.example.com/Restored"

// Reasons of the condition Restored. Where a store or the node is the cause, the reasons are
// those of the condition Ready of a Checkpoint.
const (
	ReasonRestored           = "Restored"
	ReasonFetching           = "Fetching"
	ReasonRestoring          = "Restoring"
	ReasonRestoreFailed      = "RestoreFailed"
	ReasonStartedFresh       = "StartedFresh"
	ReasonCheckpointNotFound = "CheckpointNotFound"
	ReasonCheckpointNotReady = "CheckpointNotReady"
	ReasonIncompatible       = "Incompatible"
	ReasonNoWrapper          = "NodeHasNoRuntimeWrapper"
	ReasonRestartForbidden   = "RestartForbidden"
	ReasonDataElsewhere      = "DataOnOtherNode"
)
