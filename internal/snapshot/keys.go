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

// Finalizers of snapshots and of their sources.
const (
	// AsSourceFinalizer is on each VolumeSnapshot that a controller handles.
	AsSourceFinalizer = single + "volumesnapshot-as-source-protection"
	// BoundFinalizer keeps a VolumeSnapshot until its content is deleted.
	BoundFinalizer = single + "volumesnapshot-bound-protection"
	// InGroupFinalizer keeps a member of a group as long as the group exists.
	InGroupFinalizer = single + "volumesnapshot-in-group-protection"
	// ClaimFinalizer keeps a claim while a snapshot of it is being taken.
	ClaimFinalizer = single + "pvc-as-source-protection"
	// GroupBoundFinalizer keeps a VolumeGroupSnapshot until its content is deleted.
	GroupBoundFinalizer = group + "volumegroupsnapshot-bound-protection"
)

const (
	// AllowModeChange is an annotation of a content. It allows to restore its snapshot to a
	// volume of another mode (KEP-3141). Administrators set it.
	AllowModeChange = single + "allow-volume-mode-change"
	// ManagedBy is a label of a content. It names the node of the volume, for drivers with
	// one csi-snapshotter per node.
	ManagedBy = single + "managed-by"
	// GroupHandleAnnotation on a content is the driver's handle of the group snapshot of which
	// it is a member. The sidecar never creates or deletes the snapshot of such a content alone.
	GroupHandleAnnotation = "groupsnapshot.storage.k8s.io/volumeGroupSnapshotHandle"
)

// ClaimUID is a label of a VolumeSnapshot with the UID of its claim. The spec only has the
// name, which another claim may have when the snapshot is taken. Schedules set it.
const ClaimUID = "schedule.holdfast.io/claim-uid"

// Other labels and annotations that schedules set on a VolumeSnapshot.
const (
	// ScheduleName and ScheduleUID are labels with the name and the UID of the schedule.
	ScheduleName = "schedule.holdfast.io/name"
	ScheduleUID  = "schedule.holdfast.io/uid"
	// ScheduleRun and ScheduleRunID are annotations with the time and the ID of the run.
	ScheduleRun   = "schedule.holdfast.io/run"
	ScheduleRunID = "schedule.holdfast.io/run-id"
)

// MatchesClaim reports whether a VolumeSnapshot may be taken of the claim that has the name in
// its spec: it has no label [ClaimUID], or the label has this claim's UID.
func MatchesClaim(snapshot, claim metav1.Object) bool {
	uid := snapshot.GetLabels()[ClaimUID]
	return uid == "" || uid == string(claim.GetUID())
}

// Keys are the annotations and the finalizer that snapshot-controller and csi-snapshotter use
// for one kind of contents.
type Keys struct {
	// Content is the name of the kind.
	Content string
	// Finalizer keeps a content until csi-snapshotter has deleted the snapshot.
	Finalizer string
	// BeingCreated is the being-created annotation. csi-snapshotter sets it before it calls
	// the driver to create the snapshot, and removes it when the outcome is recorded.
	BeingCreated string
	// BeingDeleted is the being-deleted annotation. snapshot-controller sets it to allow
	// csi-snapshotter to delete the snapshot at the driver and the content.
	BeingDeleted string
	// SecretName and SecretNamespace name the secret for creating and deleting snapshots.
	SecretName, SecretNamespace string
	// Default on a class makes it the default for snapshots that name no class.
	Default string
}

// Keys of the two kinds.
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

// Yes is the value of annotations whose presence matters.
const Yes = yes

// SecretOf returns the secret that a content's annotations name, or nil. If name or namespace
// is missing, it returns nil: the annotations may have been written by hand.
func (k Keys) SecretOf(annotations map[string]string) *corev1.SecretReference {
	name, namespace := annotations[k.SecretName], annotations[k.SecretNamespace]
	if name == "" || namespace == "" {
		return nil
	}
	return &corev1.SecretReference{Namespace: namespace, Name: name}
}
