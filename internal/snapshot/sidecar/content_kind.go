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

// A ContentKind is a kind of contents: VolumeSnapshotContents or VolumeGroupSnapshotContents.
// It has the kind's types and CSI calls, and makes no decisions.
type ContentKind interface {
	// Name is used in the names of controllers and in metrics.
	Name() string
	// Keys are the kind's annotations and finalizer.
	Keys() snapshot.Keys
	// Reasons are the reasons of the kind's events.
	Reasons() Reasons
	// Naming is the format of the kind's snapshot names at the driver.
	Naming() snapshot.Naming
	// New returns an empty content, and NewList an empty list.
	New() client.Object
	NewList() client.ObjectList
	// NewClass returns an empty class.
	NewClass() client.Object
	// Read converts a content of the kind.
	Read(o client.Object) Content
	// ReadClass reads a class of the kind. It returns nil if the class does not exist.
	ReadClass(ctx context.Context, from client.Reader, name string) (*snapshot.Class, error)
	// ReadSecret returns the secret that a class names for reading snapshots, or nil if it
	// names none. It resolves the tokens that are known for a content.
	ReadSecret(class *snapshot.Class, content string) (*corev1.SecretReference, error)
	// AddMetadata adds the names of the content and its snapshot to the driver's parameters.
	AddMetadata(parameters map[string]string, c *Content)

	// Create creates a snapshot at the driver. It is idempotent.
	Create(ctx context.Context, driver *csi.Driver, r Request) (*Snapshot, error)
	// Get reads a snapshot by its handle. The error has code Unimplemented if the driver
	// does not support that.
	Get(ctx context.Context, driver *csi.Driver, c *Content, secrets map[string]string) (*Snapshot, error)
	// Delete deletes a snapshot at the driver. It succeeds if the snapshot does not exist.
	Delete(ctx context.Context, driver *csi.ConditionalDriver, c *Content, secrets map[string]string) error
	// Discard deletes the snapshot of a [csi.InvalidResponse].
	Discard(ctx context.Context, driver *csi.ConditionalDriver, bad *csi.InvalidResponse, secrets map[string]string) error
	// ListIDs returns the ids of the snapshots of a content's volumes at the driver, or
	// false if the driver does not support that.
	ListIDs(ctx context.Context, driver *csi.Driver, c *Content, secrets map[string]string) (ids []string, ok bool, err error)
	// StatusPatch returns the merge patch of a content's status for a snapshot.
	StatusPatch(c *Content, made *Snapshot) map[string]any
}

// Reasons are the reasons of events about contents.
type Reasons struct{ Create, Check, Delete string }

// Content has the fields of a content that the sidecar uses, for both kinds.
type Content struct {
	Object client.Object
	// Ref refers to the user's VolumeSnapshot or VolumeGroupSnapshot.
	Ref    corev1.ObjectReference
	Driver string
	Class  string // empty for none
	Retain bool
	// Volumes are the handles of the source volumes. It is empty for a pre-provisioned
	// snapshot.
	Volumes []string
	// PreProvisioned is the handle of a pre-provisioned snapshot.
	PreProvisioned string
	// Handle is the snapshot's handle in the status; empty until it is known.
	Handle string
	Ready  bool
	// Created is when the snapshot was taken, in nanoseconds since 1970; 0 if unknown.
	Created int64
	// Members are the members of a group snapshot in the status.
	Members []Member
	// GroupHandle is the handle of the group of which the snapshot is a member.
	GroupHandle string
	Error       *snapshotv1.VolumeSnapshotError
	// HasStatus is set if the content has a status.
	HasStatus bool
}

// handle returns the snapshot's handle, or "" if it is unknown.
func (c *Content) handle() string {
	if c.Handle != "" {
		return c.Handle
	}
	return c.PreProvisioned
}

// Request is a request to create a snapshot.
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
	// Created is in nanoseconds since 1970, or 0 if the driver does not say.
	Created int64
	// Size is the size in bytes of a volume that is restored from the snapshot, or 0 if the
	// driver does not say.
	Size int64
	// GroupHandle is the handle of the group of which it is a member.
	GroupHandle string
	// Members are the members of a group snapshot, sorted by volume handle.
	Members []Member
}

// Member is one member of a group snapshot.
type Member struct {
	Volume, Handle string
	Ready          bool
	Created, Size  int64 // as in Snapshot
}

// readSecret resolves the secret that a class names for reading.
func readSecret(use secretref.Use, class *snapshot.Class, tokens secretref.Tokens) (*corev1.SecretReference, error) {
	if class == nil {
		return nil, nil
	}
	return use.Resolve(class.Parameters, tokens)
}
