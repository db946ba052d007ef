// Package kube holds the few Kubernetes things that all controllers share:
// the exact strings of the objects that they hand to each other and to the
// programs of Kubernetes, events, and changes to objects under a condition.
package kube

// Strings of the volume controllers, unchanged from the csi-provisioner that
// role csi-provisioner replaces, so that either can take over from the other.
const (
	// AnnStorageProvisioner on a claim names who shall provision it. The PV
	// controller of Kubernetes writes it, for a class that waits for the first
	// consumer only after the scheduler has selected a node.
	AnnStorageProvisioner     = "volume.kubernetes.io/storage-provisioner"
	AnnBetaStorageProvisioner = "volume.beta.kubernetes.io/storage-provisioner"
	// AnnSelectedNode on a claim is the node that the scheduler has selected.
	AnnSelectedNode      = "volume.kubernetes.io/selected-node"
	AnnAlphaSelectedNode = "volume.alpha.kubernetes.io/selected-node"
	// AnnBetaStorageClass on a claim names its class the old way.
	AnnBetaStorageClass = "volume.beta.kubernetes.io/storage-class"

	// AnnMigratedTo on a claim or volume is the CSI driver that serves it in the
	// place of a plugin that Kubernetes once had built in.
	AnnMigratedTo = "pv.kubernetes.io/migrated-to"
	// AnnProvisionedBy on a volume is the class's provisioner.
	AnnProvisionedBy = "pv.kubernetes.io/provisioned-by"
	// AnnDeletionSecretName and AnnDeletionSecretNamespace on a volume name the
	// secret for DeleteVolume; both are there, and empty, when there is none.
	AnnDeletionSecretName      = "volume.kubernetes.io/provisioner-deletion-secret-name"
	AnnDeletionSecretNamespace = "volume.kubernetes.io/provisioner-deletion-secret-namespace"
	// AnnModifySecretName and AnnModifySecretNamespace on a volume name the
	// secret for ControllerModifyVolume, if there is one.
	AnnModifySecretName      = "volume.kubernetes.io/controller-modify-secret-name"
	AnnModifySecretNamespace = "volume.kubernetes.io/controller-modify-secret-namespace"
	// VolumeFinalizer keeps a volume object until the driver has deleted the volume.
	VolumeFinalizer = "external-provisioner.volume.kubernetes.io/finalizer"
	// SnapshotSourceFinalizer and CloneSourceFinalizer keep what a volume is
	// being filled from. Every provisioner in the cluster uses the same.
	SnapshotSourceFinalizer = "provisioner.storage.kubernetes.io/volumesnapshot-as-source-protection"
	CloneSourceFinalizer    = "provisioner.storage.kubernetes.io/cloning-protection"
	// AnnAllowModeChange on a snapshot's content lets it be restored to a volume
	// of another mode (KEP-3141). Administrators write it.
	AnnAllowModeChange = "snapshot.storage.kubernetes.io/allow-volume-mode-change"
	// AnnNodeExpansionNotRequired on a claim tells kubelets that its last expansion
	// left nothing to do for them.
	AnnNodeExpansionNotRequired = "volume.kubernetes.io/node-expansion-not-required"
	// AnnStorageResizer on a claim is the CSI driver that is to expand its volume,
	// which is one of a plugin that Kubernetes once had built in.
	AnnStorageResizer = "volume.kubernetes.io/storage-resizer"
	// AnnPreResizeCapacity on a volume is the claim's size before an expansion
	// that its node has not finished yet.
	AnnPreResizeCapacity = "volume.alpha.kubernetes.io/pre-resize-capacity"
	// AttributeIdentity in a volume's attributes tells which process made it.
	AttributeIdentity = "storage.kubernetes.io/csiProvisionerIdentity"
)

// Reasons of the events of the volume controllers.
const (
	ReasonProvisioning          = "Provisioning"
	ReasonProvisioningSucceeded = "ProvisioningSucceeded"
	ReasonProvisioningFailed    = "ProvisioningFailed"
	ReasonVolumeFailedDelete    = "VolumeFailedDelete"
	ReasonWaitingForDetach      = "WaitingForDetach"
	ReasonFailedAttach          = "FailedAttachVolume"
	ReasonFailedDetach          = "FailedDetachVolume"
	ReasonDanglingPublication   = "DanglingPublication"

	ReasonResizing                 = "Resizing"
	ReasonVolumeResizeFailed       = "VolumeResizeFailed"
	ReasonVolumeResizeSuccessful   = "VolumeResizeSuccessful"
	ReasonFileSystemResizeRequired = "FileSystemResizeRequired"
	ReasonVolumeModify             = "VolumeModify"
	ReasonVolumeModifyFailed       = "VolumeModifyFailed"
	ReasonVolumeModifySuccessful   = "VolumeModifySuccessful"
	ReasonVolumeModifyCanceled     = "VolumeModifyCanceled"
)

// Keys of parameters in classes and in requests to drivers.
const (
	// ReservedParameterPrefix begins the keys of class parameters that are for
	// Kubernetes and not for the driver.
	ReservedParameterPrefix = "csi.storage.k8s.io/"
	// ParameterClaimName, ParameterClaimNamespace and ParameterVolumeName are sent to
	// drivers with --extra-create-metadata and --extra-modify-metadata.
	ParameterClaimName      = ReservedParameterPrefix + "pvc/name"
	ParameterClaimNamespace = ReservedParameterPrefix + "pvc/namespace"
	ParameterVolumeName     = ReservedParameterPrefix + "pv/name"
)
