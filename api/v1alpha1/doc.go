// Package v1alpha1 holds the types of group holdfast.io, version v1alpha1.
//
// The CustomResourceDefinitions are generated from it: see make generate.
//
// +kubebuilder:object:generate=true
// +groupName=holdfast.io
package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is the apiVersion of the package's objects.
var GroupVersion = schema.GroupVersion{Group: "holdfast.io", Version: "v1alpha1"}

// AddToScheme registers the types with a scheme.
func AddToScheme(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion, &SnapshotSchedule{}, &SnapshotScheduleList{})
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}
