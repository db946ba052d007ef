// Package v1alpha1 holds the types of group checkpoint.example.com, version v1alpha1.
//
// What comes later finds its place without a change of what is here:
//   - whole pods: containerName "*" and the list status.containers,
//   - restores: an annotation of the pod, and a section "restore" of CheckpointPolicy,
//   - volumes: a section "volumes" of CheckpointSpec, and a list "volumes" of the status.
//
// The CustomResourceDefinitions are generated from it: see make generate.
//
// +kubebuilder:object:generate=true
// +groupName=checkpoint.example.com
package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is the apiVersion of the package's objects.
var GroupVersion = schema.GroupVersion{Group: "checkpoint.example.com", Version: "v1alpha1"}

// AddToScheme registers the types with a scheme.
func AddToScheme(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion,
		&Checkpoint{}, &CheckpointList{},
		&CheckpointPolicy{}, &CheckpointPolicyList{},
		&CheckpointNode{}, &CheckpointNodeList{},
		&CheckpointSchedule{}, &CheckpointScheduleList{})
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}

const (
	// Finalizer keeps a Checkpoint until its data are deleted.
	Finalizer = "checkpoint.example.com/data"

	// AnnAbandonData set to "true" lets a deleted Checkpoint go although its data cannot be
	// deleted, because its node or its store is gone. They stay where they are.
	AnnAbandonData = "checkpoint.example.com/abandon-data"
)
