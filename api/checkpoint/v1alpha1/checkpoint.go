package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// A Checkpoint is the memory and the state of a running container at one moment, stored
// outside of the container.
//
// It takes place once, soon after the object is created. Deleting the object deletes the
// stored data. Who may create a Checkpoint in a namespace can read the memory of all
// containers there.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=ckpt,categories=holdfast
// +kubebuilder:selectablefield:JSONPath=`.status.nodeName`
// +kubebuilder:selectablefield:JSONPath=`.spec.policyRef`
// +kubebuilder:printcolumn:name="Pod",type=string,JSONPath=`.spec.target.podName`
// +kubebuilder:printcolumn:name="Container",type=string,JSONPath=`.status.containers[*].name`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Frozen",type=string,JSONPath=`.status.frozen`
// +kubebuilder:printcolumn:name="Size",type=string,JSONPath=`.status.storedSize`
// +kubebuilder:printcolumn:name="Backend",type=string,JSONPath=`.status.storage.backend`
// +kubebuilder:printcolumn:name="Node",type=string,priority=1,JSONPath=`.status.nodeName`
// +kubebuilder:printcolumn:name="Engine",type=string,priority=1,JSONPath=`.status.engine`
// +kubebuilder:printcolumn:name="Step",type=string,priority=1,JSONPath=`.status.step`
// +kubebuilder:printcolumn:name="Location",type=string,priority=1,JSONPath=`.status.containers[*].location`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type Checkpoint struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is the desired state.
	// +required
	Spec CheckpointSpec `json:"spec"`

	// status is the observed state.
	// +optional
	Status CheckpointStatus `json:"status,omitempty"`
}

// CheckpointList is a list of Checkpoints.
//
// +kubebuilder:object:root=true
type CheckpointList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []Checkpoint `json:"items"`
}

// CheckpointSpec says which container is checkpointed and where the data go.
//
// +kubebuilder:validation:XValidation:rule="has(self.policyRef) || has(self.storage)",message="set spec.storage with a backend, or spec.policyRef to take the storage of a CheckpointPolicy"
// +kubebuilder:validation:XValidation:rule="has(self.storage) == has(oldSelf.storage)",message="spec.storage cannot be changed: the data would be lost; create another Checkpoint"
// +kubebuilder:validation:XValidation:rule="has(self.encryption) == has(oldSelf.encryption)",message="spec.encryption cannot be changed: the data are encrypted already; create another Checkpoint"
type CheckpointSpec struct {
	// target is the container to checkpoint.
	// +required
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="spec.target cannot be changed: a Checkpoint takes place once; create another Checkpoint"
	Target CheckpointTarget `json:"target"`

	// policyRef is the name of a CheckpointPolicy. The policy's retention applies to this Checkpoint, and its storage if
	// spec.storage is not set.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	PolicyRef string `json:"policyRef,omitempty"`

	// storage is where the data go. It takes precedence over the policy's.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="spec.storage cannot be changed: the data would be lost; create another Checkpoint"
	Storage *CheckpointStorage `json:"storage,omitempty"`

	// encryption encrypts the data before they leave the node. It takes precedence over the policy's.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="spec.encryption cannot be changed: the data are encrypted already; create another Checkpoint"
	Encryption *Encryption `json:"encryption,omitempty"`

	// ephemeralVolumes says what is saved of emptyDir volumes and /dev/shm. It takes precedence over the policy's.
	// +optional
	EphemeralVolumes *EphemeralVolumes `json:"ephemeralVolumes,omitempty"`

	// establishedTCP says what becomes of a container with established TCP connections. Refuse rejects the Checkpoint.
	// Close checkpoints it; the connections of the running container stay, and a restored one finds them closed.
	// +optional
	// +kubebuilder:default=Refuse
	// +kubebuilder:validation:Enum=Refuse;Close
	EstablishedTCP EstablishedTCP `json:"establishedTCP,omitempty"`

	// maxFrozenTime is for how long the container may be frozen, for example 30s. A checkpoint that would take longer is
	// cancelled. Without it, the time that the container's liveness probe permits applies.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('100ms') && duration(self) <= duration('1h')",message="maxFrozenTime must be between 100ms and 1h"
	MaxFrozenTime *metav1.Duration `json:"maxFrozenTime,omitempty"`
}

// EstablishedTCP says what becomes of a container with established TCP connections.
type EstablishedTCP string

// The values of spec.establishedTCP.
const (
	RefuseTCP EstablishedTCP = "Refuse"
	CloseTCP  EstablishedTCP = "Close"
)

// CheckpointTarget is a running container.
type CheckpointTarget struct {
	// podName is the name of the pod.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	PodName string `json:"podName"`

	// namespace is the namespace of the pod, if it is another one than the Checkpoint's. Then a ReferenceGrant in the pod's
	// namespace has to permit it, unless the Checkpoint is in the namespace of the checkpoint operator.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace,omitempty"`

	// containerName is the name of the container. Without it, it is the first container of the pod. With * it is all of
	// them, frozen at the same moment.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	ContainerName string `json:"containerName,omitempty"`
}

// AllContainers is the containerName that stands for all containers of a pod.
const AllContainers = "*"

// CheckpointStatus is the observed state of a Checkpoint.
type CheckpointStatus struct {
	// observedGeneration is the generation of the object that this status describes.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// conditions are Ready and, for a Checkpoint that will never be ready, Failed.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// nodeName is the node whose agent acts next: the pod's, or another one that deletes the data of a node that is gone.
	// +optional
	NodeName string `json:"nodeName,omitempty"`

	// sourceNode is the node of the container.
	// +optional
	SourceNode string `json:"sourceNode,omitempty"`

	// podUID is the UID of the pod. A pod of the same name with another UID is not checkpointed.
	// +optional
	PodUID types.UID `json:"podUID,omitempty"`

	// storage is where the data go, resolved from the spec and the policy.
	// +optional
	Storage *CheckpointStorage `json:"storage,omitempty"`

	// storageNamespace is the namespace of the Secrets that storage and encryption name.
	// +optional
	StorageNamespace string `json:"storageNamespace,omitempty"`

	// volume is the volume of the backend pvc.
	// +optional
	Volume *CheckpointVolume `json:"volume,omitempty"`

	// restores counts the pods that were restored from the Checkpoint, and those that could not be.
	// +optional
	Restores RestoreCounts `json:"restores,omitempty,omitzero"`

	// restoreMounts are the mounts of that volume on the nodes of pods that are being restored.
	// +optional
	// +listType=map
	// +listMapKey=podUID
	// +kubebuilder:validation:MaxItems=64
	RestoreMounts []RestoreMount `json:"restoreMounts,omitempty"`

	// encryption is resolved from the spec and the policy.
	// +optional
	Encryption *Encryption `json:"encryption,omitempty"`

	// encryptionNamespace is the namespace of encryption's Secret.
	// +optional
	EncryptionNamespace string `json:"encryptionNamespace,omitempty"`

	// ephemeralVolumes is resolved from the spec and the policy.
	// +optional
	EphemeralVolumes *EphemeralVolumes `json:"ephemeralVolumes,omitempty"`

	// workload identifies what the pod belongs to, for retention: the controller of its controllers, or the pod itself.
	// +optional
	Workload *Workload `json:"workload,omitempty"`

	// containers has an entry for each container of the Checkpoint.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=64
	Containers []ContainerCheckpoint `json:"containers,omitempty"`

	// engine is what made the checkpoint: runc or kubelet.
	// +optional
	Engine string `json:"engine,omitempty"`

	// step is how the memory was saved while the container was frozen: FreezeCopy, Tmpfs, Disk or Kubelet, fastest first.
	// +optional
	Step string `json:"step,omitempty"`

	// stepReason says why no faster step was possible.
	// +optional
	StepReason string `json:"stepReason,omitempty"`

	// frozen is for how long the container did not run. With a leading ≤ it is an upper bound.
	// +optional
	Frozen string `json:"frozen,omitempty"`

	// skew is the time between the freezing of the first and the last container.
	// +optional
	Skew string `json:"skew,omitempty"`

	// storedSize is the size of the stored data, such as 12Mi.
	// +optional
	StoredSize string `json:"storedSize,omitempty"`

	// environment is what the checkpoint was made with. A restore needs something similar.
	// +optional
	Environment *Environment `json:"environment,omitempty"`

	// startTime is when the last attempt started.
	// +optional
	StartTime *metav1.Time `json:"startTime,omitempty"`

	// checkpointTime is when the containers were frozen: the moment whose state is stored.
	// +optional
	CheckpointTime *metav1.MicroTime `json:"checkpointTime,omitempty"`

	// completionTime is when the data were stored and verified.
	// +optional
	CompletionTime *metav1.Time `json:"completionTime,omitempty"`

	// attempts is how often a container was frozen, or may have been: it is recorded before.
	// +optional
	Attempts int32 `json:"attempts,omitempty"`

	// nextAttemptTime is when the next attempt starts.
	// +optional
	NextAttemptTime *metav1.Time `json:"nextAttemptTime,omitempty"`

	// waitingFor is who has to act next: User, Node or Store.
	// +optional
	WaitingFor string `json:"waitingFor,omitempty"`
}

// Workload is what a pod belongs to.
type Workload struct {
	// apiVersion, kind and name identify the workload in the pod's namespace.
	// +required
	APIVersion string `json:"apiVersion"`
	// +required
	Kind string `json:"kind"`
	// +required
	Name string `json:"name"`
}

// ContainerCheckpoint is the checkpoint of one container.
type ContainerCheckpoint struct {
	// name is the name of the container.
	// +required
	Name string `json:"name"`

	// containerID is its ID at the runtime.
	// +optional
	ContainerID string `json:"containerID,omitempty"`

	// image is the name of the container's image, and imageDigest its digest.
	// +optional
	Image string `json:"image,omitempty"`
	// +optional
	ImageDigest string `json:"imageDigest,omitempty"`

	// rawBytes is the size of all files of the checkpoint, and storedBytes that of the archive.
	// +optional
	RawBytes int64 `json:"rawBytes,omitempty"`
	// +optional
	StoredBytes int64 `json:"storedBytes,omitempty"`

	// digest is the SHA-256 of the archive, such as sha256:9f86….
	// +optional
	Digest string `json:"digest,omitempty"`

	// volumes are the emptyDir volumes whose files are in the archive, and /dev/shm if that is. A volume of several
	// containers is in the archive of the first.
	// +optional
	// +listType=set
	Volumes []string `json:"volumes,omitempty"`

	// location is where the archive is: s3://bucket/key, node:path or pvc:claim/path.
	// +optional
	Location string `json:"location,omitempty"`
}

// Environment is what a checkpoint was made with.
type Environment struct {
	// runtime is the CRI runtime and its version, such as containerd://2.1.9.
	// +optional
	Runtime string `json:"runtime,omitempty"`
	// ociRuntime is the OCI runtime and its version, such as runc 1.3.6.
	// +optional
	OCIRuntime string `json:"ociRuntime,omitempty"`
	// criu is the version of CRIU.
	// +optional
	CRIU string `json:"criu,omitempty"`
	// kernel is the release of the kernel.
	// +optional
	Kernel string `json:"kernel,omitempty"`
	// architecture is that of the node, such as amd64.
	// +optional
	Architecture string `json:"architecture,omitempty"`
	// cgroup is the version of cgroups on the node: v1 or v2.
	// +optional
	Cgroup string `json:"cgroup,omitempty"`
	// cpuFeatures are those that programs can use and that all CPUs of the node have, by the names of /proc/cpuinfo, with
	// spaces between them.
	// +optional
	CPUFeatures string `json:"cpuFeatures,omitempty"`
}

// Who has to act next; see CheckpointStatus.WaitingFor.
const (
	WaitingForUser  = "User"
	WaitingForNode  = "Node"
	WaitingForStore = "Store"
)

// Types of conditions.
const (
	// ConditionReady is True when all data are stored and have been read back.
	ConditionReady = "Ready"
	// ConditionFailed is True when the Checkpoint will never be ready.
	ConditionFailed = "Failed"
)

// Reasons of the condition Ready. Where the native PodCheckpoint (KEP-5823) has the same
// thing, they have its names. Failures have more specific reasons where the cause is
// known; see docs/reference/checkpoint.md.
const (
	ReasonPending            = "Pending"
	ReasonInProgress         = "CheckpointInProgress"
	ReasonCompleted          = "CheckpointCompleted"
	ReasonFailed             = "CheckpointFailed"
	ReasonSourcePodReplaced  = "SourcePodReplaced"
	ReasonPodGone            = "PodGone"
	ReasonContainerUnknown   = "ContainerUnknown"
	ReasonContainerNotActive = "ContainerNotRunning"
	ReasonPolicyMissing      = "PolicyNotFound"
	ReasonReferenceMissing   = "ReferenceNotGranted"
	ReasonNoAgent            = "NodeHasNoAgent"
	ReasonStorageInvalid     = "StorageInvalid"
	ReasonStorageUnreachable = "StorageUnavailable"
	ReasonStorageDenied      = "StorageDenied"
	ReasonStorageFull        = "StorageFull"
	ReasonNodeLost           = "NodeLost"
	ReasonDeleting           = "Deleting"
)
