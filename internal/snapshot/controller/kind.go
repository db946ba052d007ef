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

// A SnapshotKind is one kind of snapshots: single ones, or groups of them. It knows the
// kind's types, what is cut and who needs it; what is done, and when, the engine decides.
type SnapshotKind interface {
	// Info are what the kind's objects, fields and events are called.
	Info() *KindInfo
	// EmptySnapshot is an empty snapshot, NewContent an empty content, and NewContents a list of
	// those.
	EmptySnapshot() client.Object
	EmptyContent() client.Object
	EmptyContentList() client.ObjectList
	// ReadSnapshot takes out of a snapshot what the work on it depends on, and ReadContent
	// out of a content.
	ReadSnapshot(o client.Object) *Snapshot
	ReadContent(o client.Object) *Content
	// GetClass reads a class of the kind; nil if there is none of that name. Classes
	// reads all of them.
	GetClass(ctx context.Context, name string) (*snapshot.Class, error)
	ListClasses(ctx context.Context) ([]*snapshot.Class, error)
	// SnapshotterSecret is the secret that a class names for making and deleting a snapshot.
	SnapshotterSecret(class *snapshot.Class, content string, ref corev1.ObjectReference) (*corev1.SecretReference, error)

	// Sources finds the claims that a snapshot is of, with their volumes.
	Sources(ctx context.Context, from client.Reader, of *Snapshot) ([]snapshot.Source, error)
	// Validate tells what is wrong with what is to be cut.
	Validate(of *Snapshot, sources []snapshot.Source) *snapshot.Problem
	// AddClaimFinalizers keeps what is to be cut until it is. After the content is made done is
	// called.
	AddClaimFinalizers(ctx context.Context, sources []snapshot.Source) (done func(), err error)
	// NewContent is the content for a snapshot of these claims.
	NewContent(d *ContentDraft) client.Object
	// CreateMembers makes what belongs to a snapshot that is cut, and tells what of it is
	// not ready yet.
	CreateMembers(ctx context.Context, of *Snapshot, content *Content) (unready []string, err error)
	// WithContentStatus is the snapshot with the status that its content gives it.
	WithContentStatus(of *Snapshot, content *Content, unready []string) *Snapshot
	// DeletionBlocker tells what still needs a snapshot that is being deleted; nil if nothing
	// does. What may change until the end is read from the given source.
	DeletionBlocker(ctx context.Context, from client.Reader, of *Snapshot) (*snapshot.Problem, error)
	// AfterDeletion ends what belonged to a snapshot that is gone.
	AfterDeletion(ctx context.Context, key client.ObjectKey) error
}

// KindInfo are what a kind's objects, fields and events are called.
type KindInfo struct {
	Noun string // as in "snapshot s is ready to use"
	// Name is part of the controllers' names.
	Name                     string
	APIVersion               string // of the snapshots
	Snapshot, Content, Class string // kinds of the API
	Keys                     snapshot.Keys
	Operations               snapshot.OperationNames
	// RefField is the field of a content that says whose it is, ClassName the one of
	// either that names the class, Given the one of a content for what was there
	// before, and Volumes what else it can be made from.
	RefField, ClassField, PreProvisionedSource, DynamicSource string
	// ClassImmutable is set if the class of a content can be said only once.
	ClassImmutable bool
	// Finalizers are the finalizers that we put on a snapshot, KeepForDriver those for one
	// whose content is deleted with it, and Ours all that we take off.
	Finalizers, DeletePolicyFinalizers, OwnFinalizers []string
	// ReadFromAPIServer is set if what is to be cut is looked up at the API server itself, for what a
	// cache that lags does not show would be left out for ever, and so is who needs it
	// before it goes.
	ReadFromAPIServer bool
	Reasons           Reasons
	SidecarWait       snapshot.SidecarWait
}

// hasFinalizer tells whether a snapshot is kept by us.
func (k *KindInfo) hasFinalizer(of *Snapshot) bool {
	return slices.ContainsFunc(of.Object.GetFinalizers(), func(f string) bool { return slices.Contains(k.OwnFinalizers, f) })
}

// capitalizedNoun is the noun at the beginning of a sentence.
func (k *KindInfo) capitalizedNoun() string { return strings.ToUpper(k.Noun[:1]) + k.Noun[1:] }

// Reasons of a kind's events, upstream's.
type Reasons struct {
	Creating, Created, Ready                              string
	Validation, Class, DefaultClass                       string
	Create, ContentCreation, BindFailed                   string
	ContentMissing, ContentMisbound, ContentMismatch      string
	Misbound, HandleSet, ContentDeletion, DeletionPending string
}

// Snapshot is what the work on a snapshot depends on, of either kind.
type Snapshot struct {
	Object client.Object
	// Class is the one that it names, and Given the content; empty for none.
	Class, PreProvisionedContent string
	// ContentName is its content, there or not.
	ContentName string
	// IsMember is set for part of a group snapshot: the group makes the content.
	IsMember bool
	// Status is its whole status, nil if there is none, and Bound, Cut, Ready and
	// Error are what it says.
	Status         any
	BoundContent   string
	Created, Ready bool
	Error          *snapshotv1.VolumeSnapshotError
}

// Content is what the work on a content depends on, of either kind.
type Content struct {
	Object client.Object
	// Ref is the object that users made.
	Ref           corev1.ObjectReference
	Driver, Class string
	Retain        bool
	// PreProvisioned is set if it is of a snapshot that was at the driver before, or of one
	// that came there as part of a group.
	PreProvisioned bool
	// MemberWithoutHandle is set if it is of a part of a group of which no handle is known: it has
	// nothing to keep, for the group's content has all handles.
	MemberWithoutHandle bool
	// Node is the node whose csi-snapshotter alone works on it, as a label names it;
	// empty if any does.
	Node string
	// MayExistAtDriver is set if something is, or may be, at the driver that must be deleted
	// with it.
	MayExistAtDriver bool
	// Status is its whole status, nil if there is none, and Error what it says went wrong.
	Status any
	Error  *snapshotv1.VolumeSnapshotError
}

// A ContentDraft is a content that is to be made.
type ContentDraft struct {
	Meta    metav1.ObjectMeta
	Ref     corev1.ObjectReference
	Class   *snapshot.Class
	Sources []snapshot.Source
}
