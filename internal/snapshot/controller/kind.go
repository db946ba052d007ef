package controller

import (
	"context"
	"slices"
	"strings"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// A SnapshotKind is one kind of snapshots: single ones, or groups. It knows the kind's
// types, what a snapshot is taken of, and what delays its deletion. The reconciler
// decides what is done, and when.
type SnapshotKind interface {
	// Info has the names of the kind's objects, fields and events.
	Info() *KindInfo
	// EmptySnapshot, EmptyContent and EmptyContentList return objects to read into.
	EmptySnapshot() client.Object
	EmptyContent() client.Object
	EmptyContentList() client.ObjectList
	// ReadSnapshot converts a snapshot of this kind, and ReadContent a content.
	ReadSnapshot(o client.Object) *Snapshot
	ReadContent(o client.Object) *Content
	// GetClass reads a class of the kind; nil if there is none of that name.
	GetClass(ctx context.Context, name string) (*snapshot.Class, error)
	ListClasses(ctx context.Context) ([]*snapshot.Class, error)
	// SnapshotterSecret is the secret that a class names for creating and deleting a
	// snapshot.
	SnapshotterSecret(class *snapshot.Class, content string, ref corev1.ObjectReference) (*corev1.SecretReference, error)

	// Sources finds the claims that a snapshot is to be taken of, with their volumes.
	Sources(ctx context.Context, from client.Reader, of *Snapshot) ([]snapshot.Source, error)
	// Validate reports why no snapshot can be taken of these claims; nil if it can.
	Validate(of *Snapshot, sources []snapshot.Source) *snapshot.Problem
	// AddClaimFinalizers protects the claims until the snapshot is taken. The caller calls
	// unlock after it has created the content.
	AddClaimFinalizers(ctx context.Context, sources []snapshot.Source) (unlock func(), err error)
	// NewContent is the content to create for a snapshot.
	NewContent(d *ContentDraft) client.Object
	// CreateMembers creates the members of a group that is taken. It returns the names of
	// those that are not ready yet.
	CreateMembers(ctx context.Context, of *Snapshot, content *Content) (unready []string, err error)
	// WithContentStatus is the snapshot with the status that follows from its content.
	WithContentStatus(of *Snapshot, content *Content, unready []string) *Snapshot
	// DeletionBlocker reports what still needs a snapshot that is being deleted; nil if
	// nothing does. What may change until the deletion is read from the given reader.
	DeletionBlocker(ctx context.Context, from client.Reader, of *Snapshot) (*snapshot.Problem, error)
	// AfterDeletion deletes what belonged to a snapshot that is gone.
	AfterDeletion(ctx context.Context, key client.ObjectKey) error
}

// KindInfo has the names of a kind's objects, fields and events.
type KindInfo struct {
	Noun string // as in "snapshot s is ready to use"
	// Name is part of the controllers' names.
	Name                     string
	APIVersion               string // of the snapshots
	Snapshot, Content, Class string // kinds of the API
	Keys                     snapshot.Keys
	Operations               snapshot.OperationNames
	// RefField is the field of a content that refers to its snapshot, and ClassField the
	// field of both that names the class.
	RefField, ClassField string
	// PreProvisionedSource is what the spec of a pre-provisioned content has, and
	// DynamicSource what the spec of any other content has, in the words of messages.
	PreProvisionedSource, DynamicSource string
	// ClassImmutable is set if the class of a content cannot be changed.
	ClassImmutable bool
	// Finalizers are added to each snapshot, and DeletePolicyFinalizers to those whose
	// content is deleted with them. OwnFinalizers are all that we remove.
	Finalizers, DeletePolicyFinalizers, OwnFinalizers []string
	// ReadFromAPIServer is set if a stale cache could do harm to this kind: a claim that
	// it does not show would be missing from the group, and a provisioner that has begun
	// to restore a member would lose it. Both are then read from the API server.
	ReadFromAPIServer bool
	Reasons           Reasons
	SidecarWait       snapshot.SidecarWait
}

// hasFinalizer reports whether a snapshot has one of our finalizers.
func (k *KindInfo) hasFinalizer(of *Snapshot) bool {
	return slices.ContainsFunc(of.Object.GetFinalizers(), func(f string) bool { return slices.Contains(k.OwnFinalizers, f) })
}

// capitalizedNoun is the noun at the beginning of a sentence.
func (k *KindInfo) capitalizedNoun() string { return strings.ToUpper(k.Noun[:1]) + k.Noun[1:] }

// Reasons are those of a kind's events. They are upstream's.
type Reasons struct {
	Creating, Created, Ready                              string
	Validation, Class, DefaultClass                       string
	Create, ContentCreation, BindFailed                   string
	ContentMissing, ContentMisbound, ContentMismatch      string
	Misbound, HandleSet, ContentDeletion, DeletionPending string
}

// Snapshot is a snapshot of either kind, as far as the reconciler depends on it.
type Snapshot struct {
	Object client.Object
	// Class is the class, and PreProvisionedContent the content, that the spec names;
	// empty for none.
	Class, PreProvisionedContent string
	// ContentName is the name of its content, whether that exists or not.
	ContentName string
	// IsMember is set for a member of a group snapshot: the group's controller creates
	// the content.
	IsMember bool
	// Status is the whole status, nil if there is none. The fields below are parts of it.
	Status         any
	BoundContent   string
	Created, Ready bool
	Error          *snapshotv1.VolumeSnapshotError
}

// Content is a content of either kind, as far as the reconciler depends on it.
type Content struct {
	Object client.Object
	// Ref refers to the snapshot.
	Ref           corev1.ObjectReference
	Driver, Class string
	Retain        bool
	// PreProvisioned is set if the snapshot existed at the driver before the content, or
	// was created there as a member of a group.
	PreProvisioned bool
	// MemberWithoutHandle is set for the content of a group member whose handle is not
	// known. It is not worth retaining: the group's content has all handles.
	MemberWithoutHandle bool
	// Node is the node whose csi-snapshotter alone works on it, from its managed-by label;
	// empty if any csi-snapshotter does.
	Node string
	// MayExistAtDriver is set if there is, or may be, a snapshot at the driver that must be
	// deleted with the content.
	MayExistAtDriver bool
	// Status is the whole status, nil if there is none, and Error is part of it.
	Status any
	Error  *snapshotv1.VolumeSnapshotError
}

// A ContentDraft has what the content of either kind is created from.
type ContentDraft struct {
	Meta    metav1.ObjectMeta
	Ref     corev1.ObjectReference
	Class   *snapshot.Class
	Sources []snapshot.Source
}
