package sidecar

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/secretref"
	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// A ContentKind is one kind of contents: those of single snapshots, or of groups. It
// knows the kind's types and the driver's calls, and decides nothing.
type ContentKind interface {
	// Name is that of the controllers, and what the kind is called in metrics.
	Name() string
	// Keys are the kind's strings.
	Keys() snapshot.Keys
	// Reasons are those of the kind's events.
	Reasons() Reasons
	// Naming says how the kind's snapshots are called at the driver.
	Naming() snapshot.Naming
	// New is an empty content, and NewList an empty list of them.
	New() client.Object
	NewList() client.ObjectList
	// NewClass is an empty class.
	NewClass() client.Object
	// Read takes out of a content what the work on it depends on.
	Read(o client.Object) Content
	// ReadClass reads a class of the kind; nil if there is none of that name.
	ReadClass(ctx context.Context, from client.Reader, name string) (*snapshot.Class, error)
	// ReadSecret is the secret that a class names for reading snapshots, with the
	// tokens that are known for a content; nil if it names none.
	ReadSecret(class *snapshot.Class, content string) (*corev1.SecretReference, error)
	// AddMetadata tells the driver, by parameters, of which objects a snapshot is.
	AddMetadata(parameters map[string]string, c *Content)

	// Create asks the driver for a snapshot, or finds it: it is idempotent.
	Create(ctx context.Context, driver *csi.Driver, r Request) (*Snapshot, error)
	// Get reads a snapshot of which the driver has said the handle. Where the
	// driver cannot do that the code of the error is Unimplemented.
	Get(ctx context.Context, driver *csi.Driver, c *Content, secrets map[string]string) (*Snapshot, error)
	// Delete deletes a snapshot at the driver; one that is gone is a success.
	Delete(ctx context.Context, driver *csi.ConditionalDriver, c *Content, secrets map[string]string) error
	// Discard deletes what a [csi.InvalidResponse] was about.
	Discard(ctx context.Context, driver *csi.ConditionalDriver, bad *csi.InvalidResponse, secrets map[string]string) error
	// ListIDs are the ids of the snapshots of a content's volumes at the driver; false
	// if the driver cannot tell.
	ListIDs(ctx context.Context, driver *csi.Driver, c *Content, secrets map[string]string) (ids []string, ok bool, err error)
	// StatusPatch is what a content's status says of a snapshot, for a merge patch.
	StatusPatch(c *Content, made *Snapshot) map[string]any
}

// Reasons of the events about contents.
type Reasons struct{ Create, Check, Delete string }

// Content is what the work on a content depends on, of either kind.
type Content struct {
	Object client.Object
	// Ref is the object that users made.
	Ref    corev1.ObjectReference
	Driver string
	Class  string // empty for none
	Retain bool
	// Volumes are the handles of what is to be cut; none if the snapshot was
	// there before the content.
	Volumes []string
	// PreProvisioned is the handle of a snapshot that was there before.
	PreProvisioned string
	// Handle is the driver's, as the status has it; empty until it is known.
	Handle string
	Ready  bool
	// Created is when the snapshot was cut, in nanoseconds since 1970; 0 if that
	// is not known yet.
	Created int64
	// Members are the single snapshots of a group snapshot, as the status has them.
	Members []Member
	// GroupHandle is set for part of a group snapshot: the group's handle.
	GroupHandle string
	Error       *snapshotv1.VolumeSnapshotError
	// HasStatus is set when anything has been said in the status.
	HasStatus bool
}

// handle is the driver's handle of the snapshot, if it is known at all.
func (c *Content) handle() string {
	if c.Handle != "" {
		return c.Handle
	}
	return c.PreProvisioned
}

// Request is what the driver is asked for.
type Request struct {
	Name       string
	Volumes    []string
	Parameters map[string]string
	Secrets    map[string]string
}

// Snapshot is a snapshot at the driver.
type Snapshot struct {
	Handle string
	Ready  bool
	// Created is in nanoseconds since 1970; 0 if the driver does not say.
	Created int64
	// Size is what a volume needs to be restored from it, in bytes; 0 if the
	// driver does not say.
	Size int64
	// GroupHandle is the handle of the group snapshot that it is part of.
	GroupHandle string
	// Members are the single snapshots of a group snapshot, in the order of
	// their volumes' handles.
	Members []Member
}

// Member is one snapshot of a group snapshot.
type Member struct {
	Volume, Handle string
	Ready          bool
	Created, Size  int64 // as in Cut
}

// readSecret resolves the secret for reading.
func readSecret(use secretref.Use, class *snapshot.Class, tokens secretref.Tokens) (*corev1.SecretReference, error) {
	if class == nil {
		return nil, nil
	}
	return use.Resolve(class.Parameters, tokens)
}
