// Package kube has what all controllers share: names of annotations, finalizers and
// event reasons, events, conditional writes to objects, and helpers for
// controller-runtime.
package kube

// Names of the volume controllers. They are those of upstream's sidecars, so that
// either program can take over from the other.
const (
	// AnnStorageProvisioner on a claim names its provisioner. Kubernetes' PV controller
	// writes it. For a class with WaitForFirstConsumer it does so after the
	// scheduler has selected a node.
	AnnStorageProvisioner     = "volume.kubernetes.io/storage-provisioner"
	AnnBetaStorageProvisioner = "volume.beta.kubernetes.io/storage-provisioner"
	// AnnSelectedNode on a claim is the node that the scheduler has selected.
	AnnSelectedNode      = "volume.kubernetes.io/selected-node"
	AnnAlphaSelectedNode = "volume.alpha.kubernetes.io/selected-node"
	// AnnBetaStorageClass on a claim is the deprecated name of its class.
	AnnBetaStorageClass = "volume.beta.kubernetes.io/storage-class"

	// AnnMigratedTo on a claim or volume is the CSI driver that replaces its
	// in-tree plugin.
	AnnMigratedTo = "pv.kubernetes.io/migrated-to"
	// AnnProvisionedBy on a volume is the class's provisioner.
	AnnProvisionedBy = "pv.kubernetes.io/provisioned-by"
	// AnnDeletionSecretName and AnnDeletionSecretNamespace on a volume name the
	// secret for DeleteVolume. Both exist, and are empty, without a secret.
	AnnDeletionSecretName      = "volume.kubernetes.io/provisioner-deletion-secret-name"
	AnnDeletionSecretNamespace = "volume.kubernetes.io/provisioner-deletion-secret-namespace"
	// AnnModifySecretName and AnnModifySecretNamespace on a volume name the
	// secret for ControllerModifyVolume, if there is one.
	AnnModifySecretName      = "volume.kubernetes.io/controller-modify-secret-name"
	AnnModifySecretNamespace = "volume.kubernetes.io/controller-modify-secret-namespace"
	// VolumeFinalizer protects a PersistentVolume until the driver has deleted the
	// volume.
	VolumeFinalizer = "external-provisioner.volume.kubernetes.io/finalizer"
	// SnapshotSourceFinalizer and CloneSourceFinalizer protect the source of a
	// volume that is being created. All provisioners in the cluster use them.
	SnapshotSourceFinalizer = "provisioner.storage.kubernetes.io/volumesnapshot-as-source-protection"
	CloneSourceFinalizer    = "provisioner.storage.kubernetes.io/cloning-protection"
	// AnnAllowModeChange on a VolumeSnapshotContent allows restoring it to a volume of
	// another volumeMode (KEP-3141). Administrators set it.
	AnnAllowModeChange = "snapshot.storage.kubernetes.io/allow-volume-mode-change"
	// AnnNodeExpansionNotRequired on a claim tells the kubelet that its last
	// expansion needs none on the node.
	AnnNodeExpansionNotRequired = "volume.kubernetes.io/node-expansion-not-required"
	// AnnStorageResizer on a claim is the CSI driver that expands a volume of an in-tree
	// plugin.
	AnnStorageResizer = "volume.kubernetes.io/storage-resizer"
	// AnnPreResizeCapacity on a volume is the claim's size before an expansion
	// that its node has not finished.
	AnnPreResizeCapacity = "volume.alpha.kubernetes.io/pre-resize-capacity"
	// AttributeIdentity in a volume's attributes identifies the process that created it.
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
	// ReasonDenied is that of a request to the API server that fails until a person changes
	// something, if the operation has no reason of its own for a failure.
	ReasonDenied = "RequestDenied"

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
