package controller

import (
	"context"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// A Kind is one kind of snapshots: single ones, or groups of them. It knows the
// kind's types, what is cut and who needs it; what is done, and when, the engine decides.
type Kind interface {
	// Info are what the kind's objects, fields and events are called.
	Info() *KindInfo
	// New is an empty snapshot, NewContent an empty content, and NewContents a list of
	// those.
	New() client.Object
	NewContent() client.Object
	NewContents() client.ObjectList
	// Read takes out of a snapshot what the work on it depends on, and ReadContent
	// out of a content.
	Read(o client.Object) *Snapshot
	ReadContent(o client.Object) *Content
	// Class reads a class of the kind; nil if there is none of that name. Classes
	// reads all of them.
	Class(ctx context.Context, name string) (*snapshot.Class, error)
	Classes(ctx context.Context) ([]*snapshot.Class, error)
	// Secret is the secret that a class names for making and deleting a snapshot.
	Secret(class *snapshot.Class, content string, ref corev1.ObjectReference) (*corev1.SecretReference, error)

	// Sources finds the claims that a snapshot is of, with their volumes.
	Sources(ctx context.Context, from client.Reader, of *Snapshot) ([]snapshot.Source, error)
	// Check tells what is wrong with what is to be cut.
	Check(of *Snapshot, sources []snapshot.Source) *snapshot.Problem
	// Hold keeps what is to be cut until it is. After the content is made done is
	// called.
	Hold(ctx context.Context, sources []snapshot.Source) (done func(), err error)
	// Make is the content for a snapshot of these claims.
	Make(d *ContentDraft) client.Object
	// Gather makes what belongs to a snapshot that is cut, and tells what of it is
	// not ready yet.
	Gather(ctx context.Context, of *Snapshot, content *Content) (unready []string, err error)
	// Follow is the snapshot with the status that its content gives it.
	Follow(of *Snapshot, content *Content, unready []string) *Snapshot
	// Users tells what still needs a snapshot that is being deleted; nil if nothing
	// does. What may change until the end is read from the given source.
	Users(ctx context.Context, from client.Reader, of *Snapshot) (*snapshot.Problem, error)
	// Gone ends what belonged to a snapshot that is gone.
	Gone(ctx context.Context, key client.ObjectKey) error
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
	// Ref is the field of a content that says whose it is, ClassName the one of
	// either that names the class, Given the one of a content for what was there
	// before, and Volumes what else it can be made from.
	Ref, ClassName, PreProvisioned, Volumes string
	// ClassOnce is set if the class of a content can be said only once.
	ClassOnce bool
	// Keep are the finalizers that we put on a snapshot, KeepForDriver those for one
	// whose content is deleted with it, and Ours all that we take off.
	Keep, KeepForDriver, Ours []string
	// Live is set if what is to be cut is looked up at the API server itself, for what a
	// cache that lags does not show would be left out for ever, and so is who needs it
	// before it goes.
	Live    bool
	Reasons Reasons
	Service snapshot.SidecarWait
}

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
	Class, PreProvisioned string
	// ContentName is its content, there or not.
	ContentName string
	// Member is set for part of a group snapshot: the group makes the content.
	Member bool
	// Status is its whole status, nil if there is none, and Bound, Cut, Ready and
	// Error are what it says.
	Status         any
	Bound          string
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
	// Void is set if it is of a part of a group of which no handle is known: it has
	// nothing to keep, for the group's content has all handles.
	Void bool
	// Node is the node whose csi-snapshotter alone works on it, as a label names it;
	// empty if any does.
	Node string
	// AtDriver is set if something is, or may be, at the driver that must be deleted
	// with it.
	AtDriver bool
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
