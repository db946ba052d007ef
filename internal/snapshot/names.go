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
