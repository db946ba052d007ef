package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A CheckpointPolicy says where the data of Checkpoints go and how long they are kept. It
// applies to the Checkpoints that name it, in all namespaces.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=ckptpolicy,categories=holdfast
// +kubebuilder:printcolumn:name="Backend",type=string,JSONPath=`.spec.storage.backend`
// +kubebuilder:printcolumn:name="Max count",type=integer,JSONPath=`.spec.retention.maxCount`
// +kubebuilder:printcolumn:name="Max age",type=string,JSONPath=`.spec.retention.maxAge`
// +kubebuilder:printcolumn:name="Ready",type=integer,JSONPath=`.status.readyCheckpoints`
// +kubebuilder:printcolumn:name="Next expiration",type=date,priority=1,JSONPath=`.status.nextExpirationTime`
// +kubebuilder:printcolumn:name="Applied",type=string,JSONPath=`.status.conditions[?(@.type=="RetentionApplied")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type CheckpointPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is the policy.
	// +required
	Spec CheckpointPolicySpec `json:"spec"`

	// status is the observed state of the policy's Checkpoints.
	// +optional
	Status CheckpointPolicyStatus `json:"status,omitempty"`
}

// CheckpointPolicyList is a list of CheckpointPolicies.
//
// +kubebuilder:object:root=true
type CheckpointPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []CheckpointPolicy `json:"items"`
}

// CheckpointPolicySpec is a policy.
type CheckpointPolicySpec struct {
	// storage is where the data go, if a Checkpoint does not say it.
	// +optional
	Storage *CheckpointStorage `json:"storage,omitempty"`

	// encryption encrypts the data, if a Checkpoint does not say how.
	// +optional
	Encryption *Encryption `json:"encryption,omitempty"`

	// ephemeralVolumes says what is saved of emptyDir volumes and /dev/shm, if a Checkpoint does not say it.
	// +optional
	EphemeralVolumes *EphemeralVolumes `json:"ephemeralVolumes,omitempty"`

	// retention limits which Checkpoints are kept. Without it, all are kept.
	// +optional
	Retention *CheckpointRetention `json:"retention,omitempty"`

	// restore says how pods are restored from these Checkpoints.
	// +optional
	Restore *RestoreOptions `json:"restore,omitempty"`
}

// CheckpointRetention limits which ready Checkpoints of a workload are kept, over the
// whole cluster. Those that are not ready do not count and are not deleted.
//
// +kubebuilder:validation:XValidation:rule="has(self.maxCount) || has(self.maxAge)",message="set maxCount, maxAge or both; without retention all Checkpoints are kept"
type CheckpointRetention struct {
	// maxCount is how many ready Checkpoints of each workload are kept.
	// +optional
	// +kubebuilder:validation:Minimum=1
	MaxCount *int32 `json:"maxCount,omitempty"`

	// maxAge is how long a ready Checkpoint is kept, for example 72h.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1m')",message="maxAge must be at least 1m"
	MaxAge *metav1.Duration `json:"maxAge,omitempty"`

	// minCount is how many ready Checkpoints of each workload are kept although they are older than maxAge. With 0 the
	// last one goes, too.
	// +optional
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=0
	MinCount *int32 `json:"minCount,omitempty"`
}

// CheckpointPolicyStatus is what the operator keeps and deletes by a policy. It follows
// changes within seconds.
type CheckpointPolicyStatus struct {
	// observedGeneration is the generation of the policy that this status describes.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// conditions has RetentionApplied, if the policy has a retention: False while expired Checkpoints cannot be deleted.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// readyCheckpoints is how many ready Checkpoints name the policy, without those that are being deleted.
	// +optional
	ReadyCheckpoints int32 `json:"readyCheckpoints"`

	// workloads is how many workloads these Checkpoints are of. Retention counts those of each workload separately.
	// +optional
	Workloads int32 `json:"workloads"`

	// nextExpirationTime is when the next of these Checkpoints becomes older than maxAge, if there is no change before.
	// +optional
	NextExpirationTime *metav1.Time `json:"nextExpirationTime,omitempty"`
}

// ConditionRetentionApplied is True when no expired Checkpoint of a policy is left.
const ConditionRetentionApplied = "RetentionApplied"

// Reasons of the condition RetentionApplied.
const (
	ReasonRetentionApplied = "Applied"
	// ReasonDeletionRejected means that the API server does not let the operator delete an
	// expired Checkpoint.
	ReasonDeletionRejected = "DeletionRejected"
	// ReasonDataNotDeleted means that a Checkpoint is deleted, and its agent cannot delete
	// its data.
	ReasonDataNotDeleted = "DataNotDeleted"
)
