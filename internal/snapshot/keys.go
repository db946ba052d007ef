package snapshot

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	single = "snapshot.storage.kubernetes.io/"
	group  = "groupsnapshot.storage.kubernetes.io/"
	yes    = "yes"
)

// Finalizers of snapshots and of what they are made from.
const (
	// AsSourceFinalizer is on each VolumeSnapshot that a controller works on.
	AsSourceFinalizer = single + "volumesnapshot-as-source-protection"
	// BoundFinalizer keeps a VolumeSnapshot until its content is gone.
	BoundFinalizer = single + "volumesnapshot-bound-protection"
	// InGroupFinalizer keeps the member of a group while the group is there.
	InGroupFinalizer = single + "volumesnapshot-in-group-protection"
	// ClaimFinalizer keeps a claim while it is being cut.
	ClaimFinalizer = single + "pvc-as-source-protection"
	// GroupBoundFinalizer keeps a VolumeGroupSnapshot until its content is gone.
	GroupBoundFinalizer = group + "volumegroupsnapshot-bound-protection"
)

const (
	// AllowModeChange on a content lets its snapshot be restored to a volume of
	// another mode (KEP-3141). Administrators write it.
	AllowModeChange = single + "allow-volume-mode-change"
	// ManagedBy is the label of a content that names the node whose driver has
	// the volume, when drivers stand on their own nodes.
	ManagedBy = single + "managed-by"
	// GroupHandleAnnotation on a content is the driver's handle of the group snapshot that it
	// is part of. Such a content is never cut or deleted by itself.
	GroupHandleAnnotation = "groupsnapshot.storage.k8s.io/volumeGroupSnapshotHandle"
)

// ClaimUID is the label of a VolumeSnapshot that says which claim it is of. The spec
// only has a name, which another claim may have by the time that the snapshot is taken.
// Schedules write it.
const ClaimUID = "schedule.holdfast.io/claim-uid"

// MatchesClaim tells whether a VolumeSnapshot may be taken of a claim, whose name it has in its
// spec: it is labelled with no claim's UID, or with that of this one.
func MatchesClaim(snapshot, claim metav1.Object) bool {
	uid := snapshot.GetLabels()[ClaimUID]
	return uid == "" || uid == string(claim.GetUID())
}

// Keys are the strings by which the two halves hand over a content.
type Keys struct {
	// Content is the kind of the contents.
	Content string
	// Finalizer keeps a content until the driver's half is done with it.
	Finalizer string
	// BeingCreated is on a content from before the driver is asked for a snapshot
	// until its answer is known. Only the driver's half writes it.
	BeingCreated string
	// BeingDeleted is the cluster's half's word that the content may go with what
	// is at the driver.
	BeingDeleted string
	// SecretName and SecretNamespace name the secret for creating and deleting.
	SecretName, SecretNamespace string
	// Default on a class makes it the one for snapshots that name none.
	Default string
}

// The marks of single snapshots and of group snapshots.
var (
	Single = Keys{
		Content:         "VolumeSnapshotContent",
		Finalizer:       single + "volumesnapshotcontent-bound-protection",
		BeingCreated:    single + "volumesnapshot-being-created",
		BeingDeleted:    single + "volumesnapshot-being-deleted",
		SecretName:      single + "deletion-secret-name",
		SecretNamespace: single + "deletion-secret-namespace",
		Default:         single + "is-default-class",
	}
	Group = Keys{
		Content:         "VolumeGroupSnapshotContent",
		Finalizer:       group + "volumegroupsnapshotcontent-bound-protection",
		BeingCreated:    group + "volumegroupsnapshot-being-created",
		BeingDeleted:    group + "volumegroupsnapshot-being-deleted",
		SecretName:      group + "deletion-secret-name",
		SecretNamespace: group + "deletion-secret-namespace",
		Default:         group + "is-default-class",
	}
)

// Yes is the value of the annotations that are there or not.
const Yes = yes

// SecretOf is the secret that a content's annotations name; nil for none. Half a
// name is none: the annotations may have been written by hand.
func (k Keys) SecretOf(annotations map[string]string) *corev1.SecretReference {
	name, namespace := annotations[k.SecretName], annotations[k.SecretNamespace]
	if name == "" || namespace == "" {
		return nil
	}
	return &corev1.SecretReference{Namespace: namespace, Name: name}
}
