package kube

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// IdentityMeta is what says which object it is, and which state of it: the least
// that a cache may keep of an object that is reduced.
func IdentityMeta(of *metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: of.Namespace, Name: of.Name, UID: of.UID, ResourceVersion: of.ResourceVersion, DeletionTimestamp: of.DeletionTimestamp,
	}
}
