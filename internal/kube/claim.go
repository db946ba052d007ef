package kube

import corev1 "k8s.io/api/core/v1"

// ClaimClass returns the name of the claim's StorageClass. As in Kubernetes, the
// beta annotation comes before the field.
func ClaimClass(claim *corev1.PersistentVolumeClaim) string {
	if beta, ok := claim.Annotations[AnnBetaStorageClass]; ok {
		return beta
	}
	if claim.Spec.StorageClassName == nil {
		return ""
	}
	return *claim.Spec.StorageClassName
}

// ClaimProvisioner returns the provisioner that the PV controller has asked to
// make the claim's volume, "" for none.
func ClaimProvisioner(claim *corev1.PersistentVolumeClaim) string {
	if name, ok := claim.Annotations[AnnStorageProvisioner]; ok {
		return name
	}
	return claim.Annotations[AnnBetaStorageProvisioner]
}

// SelectedNode returns the node that the scheduler has selected for the claim, ""
// for none.
func SelectedNode(claim *corev1.PersistentVolumeClaim) string {
	if name, ok := claim.Annotations[AnnSelectedNode]; ok {
		return name
	}
	return claim.Annotations[AnnAlphaSelectedNode]
}
