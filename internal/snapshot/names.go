package snapshot

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"

	groupv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-io/holdfast/internal/kube"
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

// ContentName is the content of a snapshot that is made from a claim. Backup
// tools derive it too.
func ContentName(snapshot types.UID) string { return "snapcontent-" + string(snapshot) }

// GroupContentName is the content of a group snapshot that is made from claims.
func GroupContentName(snapshot types.UID) string { return "groupsnapcontent-" + string(snapshot) }

// MemberNames are the objects of a group's snapshot of one volume: the
// VolumeSnapshot and its content.
func MemberNames(group types.UID, volumeHandle string) (snapshot, content string) {
	sum := sha256.Sum256([]byte(string(group) + volumeHandle))
	snapshot = memberPrefix + hex.EncodeToString(sum[:])
	return snapshot, MemberContentName(snapshot)
}

// MemberContentName is the content of a member of a group by the member's name.
func MemberContentName(snapshot string) string {
	return "snapcontent-" + strings.TrimPrefix(snapshot, memberPrefix)
}

const memberPrefix = "snapshot-"

// GroupOf is the VolumeGroupSnapshot that an object is a member of; nil for
// none. The version of its owner's API does not matter: it may have been another
// when the member was made.
func GroupOf(o metav1.Object) *metav1.OwnerReference {
	for _, owner := range o.GetOwnerReferences() {
		group, _, _ := strings.Cut(owner.APIVersion, "/")
		if owner.Kind == "VolumeGroupSnapshot" && group == groupv1.GroupName {
			return &owner
		}
	}
	return nil
}

// Naming says how snapshots are called at the driver.
type Naming struct {
	Prefix string
	// Length is how much of the UID is taken, without its dashes; -1 for all of
	// it, with them.
	Length int
}

// Name is the name of a snapshot at the driver. It follows from the UID of the
// object that users made, so it is the same each time that it is asked for.
func (n Naming) Name(uid types.UID) (string, error) {
	if uid == "" {
		return "", errors.New("the content does not say for which object it is: its reference has no uid")
	}
	id := string(uid)
	if n.Length >= 0 {
		id = strings.ReplaceAll(id, "-", "")
		id = id[:min(n.Length, len(id))]
	}
	return n.Prefix + "-" + id, nil
}

// Matches tells whether a handle contains a name of this kind: many drivers make the
// one from the other. It does not say of which cluster the name is.
func (n Naming) Matches(handle string) bool {
	id := fmt.Sprintf("[0-9a-f]{%d}", n.Length)
	if n.Length < 0 {
		id = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
	}
	found, err := regexp.MatchString(regexp.QuoteMeta(n.Prefix)+"-"+id, handle)
	return found && err == nil
}

// Validate checks what flags say. Less than 8 characters would give different
// snapshots the same name sooner or later; a UID has 32.
func (n Naming) Validate(flag string) error {
	if n.Prefix == "" {
		return fmt.Errorf("--%s-name-prefix must not be empty", flag)
	}
	if n.Length != -1 && (n.Length < 8 || n.Length > 32) {
		return fmt.Errorf("--%s-name-uuid-length %d: it must be 8 to 32, or -1 for the whole", flag, n.Length)
	}
	return nil
}

// RefersTo tells whether a content's reference is to an object. Namespace and name
// must be the same, and the UID unless it is not there.
func RefersTo(ref corev1.ObjectReference, namespace, name string, uid types.UID) bool {
	return ref.Namespace == namespace && ref.Name == name && cmp.Or(ref.UID, uid) == uid
}

// NodeLabel is a node's name as the value of [ManagedBy]: itself, as upstream has
// it, unless it is too long for a label. Then it is shortened, so that it is
// still a node's own.
func NodeLabel(node string) string { return kube.LabelValue(node) }
