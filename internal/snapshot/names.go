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

// ContentName returns the name of a dynamically created content. Backup tools rely on the
// format.
func ContentName(snapshot types.UID) string { return "snapcontent-" + string(snapshot) }

// GroupContentName returns the name of a dynamically created content of a group.
func GroupContentName(snapshot types.UID) string { return "groupsnapcontent-" + string(snapshot) }

// MemberNames returns the names of the VolumeSnapshot and the content for one volume of a
// group snapshot.
func MemberNames(group types.UID, volumeHandle string) (snapshot, content string) {
	sum := sha256.Sum256([]byte(string(group) + volumeHandle))
	snapshot = memberPrefix + hex.EncodeToString(sum[:])
	return snapshot, MemberContentName(snapshot)
}

// MemberContentName returns the name of a group member's content.
func MemberContentName(snapshot string) string {
	return "snapcontent-" + strings.TrimPrefix(snapshot, memberPrefix)
}

const memberPrefix = "snapshot-"

// GroupOf returns the reference to the VolumeGroupSnapshot that owns an object, or nil. Any
// API version counts: the member may have been created with another one.
func GroupOf(o metav1.Object) *metav1.OwnerReference {
	for _, owner := range o.GetOwnerReferences() {
		group, _, _ := strings.Cut(owner.APIVersion, "/")
		if owner.Kind == "VolumeGroupSnapshot" && group == groupv1.GroupName {
			return &owner
		}
	}
	return nil
}

// Naming is the format of snapshot names at the driver.
type Naming struct {
	Prefix string
	// Length is how many characters of the UID, without dashes, are used; -1 for the whole
	// UID with dashes.
	Length int
}

// Name returns the name of a snapshot at the driver. It is derived from the UID of the user's
// object, so every retry uses the same name.
func (n Naming) Name(uid types.UID) (string, error) {
	if uid == "" {
		return "", errors.New("the content's reference to its snapshot has no uid")
	}
	id := string(uid)
	if n.Length >= 0 {
		id = strings.ReplaceAll(id, "-", "")
		id = id[:min(n.Length, len(id))]
	}
	return n.Prefix + "-" + id, nil
}

// Matches reports whether a handle contains a name of this format: many drivers derive the
// handle from the name. The name may be another cluster's.
func (n Naming) Matches(handle string) bool {
	id := fmt.Sprintf("[0-9a-f]{%d}", n.Length)
	if n.Length < 0 {
		id = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
	}
	found, err := regexp.MatchString(regexp.QuoteMeta(n.Prefix)+"-"+id, handle)
	return found && err == nil
}

// Validate checks the flags. With fewer than 8 characters, different snapshots would get the
// same name sooner or later. A UID has 32.
func (n Naming) Validate(flag string) error {
	if n.Prefix == "" {
		return fmt.Errorf("--%s-name-prefix must not be empty", flag)
	}
	if n.Length != -1 && (n.Length < 8 || n.Length > 32) {
		return fmt.Errorf("--%s-name-uuid-length %d: must be 8 to 32, or -1 for the whole UID", flag, n.Length)
	}
	return nil
}

// RefersTo reports whether a content's reference is to the given object. Namespace and name
// must be equal, and the UID if the reference has one.
func RefersTo(ref corev1.ObjectReference, namespace, name string, uid types.UID) bool {
	return ref.Namespace == namespace && ref.Name == name && cmp.Or(ref.UID, uid) == uid
}

// NodeLabel returns a node's name as the value of [ManagedBy]: unchanged, as upstream does,
// or shortened to a unique value if it is too long for a label.
func NodeLabel(node string) string { return kube.LabelValue(node) }
