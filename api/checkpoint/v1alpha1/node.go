package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A CheckpointNode says what the checkpoint agent of a node can do. The agent creates it
// under the name of its node and keeps it up to date.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=ckptnode,categories=holdfast
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Restores",type=string,JSONPath=`.status.conditions[?(@.type=="CanRestore")].status`
// +kubebuilder:printcolumn:name="Engines",type=string,JSONPath=`.status.engines[*].name`
// +kubebuilder:printcolumn:name="Runtime",type=string,JSONPath=`.status.environment.runtime`
// +kubebuilder:printcolumn:name="CRIU",type=string,JSONPath=`.status.environment.criu`
// +kubebuilder:printcolumn:name="Kernel",type=string,JSONPath=`.status.environment.kernel`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type CheckpointNode struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// status is what the agent has found out.
	// +optional
	Status CheckpointNodeStatus `json:"status,omitempty"`
}

// CheckpointNodeList is a list of CheckpointNodes.
//
// +kubebuilder:object:root=true
type CheckpointNodeList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []CheckpointNode `json:"items"`
}

// CheckpointNodeStatus is what the agent of a node has found out.
type CheckpointNodeStatus struct {
	// conditions are Ready, whether the node can make checkpoints, CanRestore, whether pods can be restored on it, and
	// OrphanedData, whether the agent has found data that belong to no Checkpoint.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// environment is what checkpoints are made with.
	// +optional
	Environment *Environment `json:"environment,omitempty"`

	// engines are those that the agent knows, in the order of preference.
	// +optional
	// +listType=map
	// +listMapKey=name
	Engines []EngineStatus `json:"engines,omitempty"`

	// restoreHandlers are those of the CRI runtime that call holdfast-runtime: pods with other ones cannot be restored.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	RestoreHandlers []string `json:"restoreHandlers,omitempty"`

	// localPath is the directory that backend local uses.
	// +optional
	LocalPath string `json:"localPath,omitempty"`

	// orphans are the largest data that belong to no Checkpoint: on the node and, for one node of the cluster, in buckets.
	// Delete them unless another cluster uses the same store.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=20
	Orphans []OrphanedData `json:"orphans,omitempty"`
}

// ConditionCanRestore is True on a CheckpointNode if a handler of the CRI runtime calls
// holdfast-runtime; its reason then is ReasonWrapperInstalled, otherwise ReasonNoWrapper.
const (
	ConditionCanRestore    = "CanRestore"
	ReasonWrapperInstalled = "RuntimeWrapperInstalled"
)

// ConditionOrphanedData is True on a CheckpointNode whose agent has found data that belong
// to no Checkpoint.
const ConditionOrphanedData = "OrphanedData"

// OrphanedData is an object in a store that belongs to no Checkpoint.
type OrphanedData struct {
	// location is where it is: s3://bucket/key or node:path.
	// +required
	Location string `json:"location"`

	// bytes is its size; 0 if it is unknown.
	// +optional
	Bytes int64 `json:"bytes,omitempty"`

	// modifiedTime is when it was written.
	// +optional
	ModifiedTime *metav1.Time `json:"modifiedTime,omitempty"`

	// incomplete is whether it is an upload that has not ended.
	// +optional
	Incomplete bool `json:"incomplete,omitempty"`
}

// EngineStatus says whether an engine works on a node.
type EngineStatus struct {
	// name is runc or kubelet.
	// +required
	Name string `json:"name"`

	// available is whether it works.
	// +required
	Available bool `json:"available"`

	// steps are those of the ladder that the node has what it needs for.
	// +optional
	// +listType=atomic
	Steps []string `json:"steps,omitempty"`

	// message says what is missing.
	// +optional
	Message string `json:"message,omitempty"`
}
