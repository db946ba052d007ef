package kube

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// IdentityMeta returns the metadata that identifies an object and its version. It is
// the least that a cache transform must keep.
func IdentityMeta(of *metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: of.Namespace, Name: of.Name, UID: of.UID, ResourceVersion: of.ResourceVersion, DeletionTimestamp: of.DeletionTimestamp,
	}
}
