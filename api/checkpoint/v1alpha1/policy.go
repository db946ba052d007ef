package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A CheckpointPolicy says where the data of Checkpoints go and how long they are kept. It
// applies to the Checkpoints that name it, in all namespaces.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=ckptpolicy,categories=holdfast
// +kubebuilder:printcolumn:name="Backend",type=string,JSONPath=`.spec.storage.backend`
// +kubebuilder:printcolumn:name="Max count",type=integer,JSONPath=`.spec.retention.maxCount`
// +kubebuilder:printcolumn:name="Max age",type=string,JSONPath=`.spec.retention.maxAge`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type CheckpointPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is the policy.
	// +required
	Spec CheckpointPolicySpec `json:"spec"`
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

	// retention limits which Checkpoints are kept. Without it, all are kept.
	// +optional
	Retention *CheckpointRetention `json:"retention,omitempty"`
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
