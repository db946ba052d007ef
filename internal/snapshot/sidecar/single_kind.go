package sidecar

import (
	"context"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// SingleKind is the ContentKind of VolumeSnapshotContents.
type SingleKind struct{ Names snapshot.Naming }

var _ ContentKind = SingleKind{}

// Name implements ContentKind.
func (SingleKind) Name() string { return "snapshot" }

// Keys implements ContentKind.
func (SingleKind) Keys() snapshot.Keys { return snapshot.Single }

// Reasons implements ContentKind.
func (SingleKind) Reasons() Reasons {
	return Reasons{Create: "SnapshotCreationFailed", Check: "SnapshotContentCheckandUpdateFailed", Delete: "SnapshotDeleteError"}
}

// Naming implements ContentKind.
func (k SingleKind) Naming() snapshot.Naming { return k.Names }

// New implements ContentKind.
func (SingleKind) New() client.Object { return &snapshotv1.VolumeSnapshotContent{} }

// NewList implements ContentKind.
func (SingleKind) NewList() client.ObjectList { return &snapshotv1.VolumeSnapshotContentList{} }

// NewClass implements ContentKind.
func (SingleKind) NewClass() client.Object { return &snapshotv1.VolumeSnapshotClass{} }

// Read implements ContentKind.
func (SingleKind) Read(o client.Object) Content {
	content := o.(*snapshotv1.VolumeSnapshotContent) //nolint:forcetypeassert // The reconciler only passes objects from New.
	spec := content.Spec
	c := Content{
		Object: content, Ref: spec.VolumeSnapshotRef, Driver: spec.Driver, Class: ptr.Deref(spec.VolumeSnapshotClassName, ""),
		Retain:         spec.DeletionPolicy == snapshotv1.VolumeSnapshotContentRetain,
		PreProvisioned: ptr.Deref(spec.Source.SnapshotHandle, ""), GroupHandle: content.Annotations[snapshot.GroupHandleAnnotation],
	}
	if volume := ptr.Deref(spec.Source.VolumeHandle, ""); volume != "" {
		c.Volumes = []string{volume}
	}
	if s := content.Status; s != nil {
		c.HasStatus, c.Handle, c.Ready = true, ptr.Deref(s.SnapshotHandle, ""), ptr.Deref(s.ReadyToUse, false)
		c.Created, c.Error = ptr.Deref(s.CreationTime, 0), s.Error
		// A driver may report a group for a snapshot that was created alone. It is not a member:
		// it must be deleted alone.
		if group := ptr.Deref(s.VolumeGroupSnapshotHandle, ""); group != "" && (c.PreProvisioned != "" || c.GroupHandle != "") {
			c.GroupHandle = group
		}
	}
	return c
}

// ReadClass implements ContentKind.
func (SingleKind) ReadClass(ctx context.Context, from client.Reader, name string) (*snapshot.Class, error) {
	return snapshot.ReadClass(ctx, from, name)
}

// ReadSecret implements ContentKind.
func (SingleKind) ReadSecret(class *snapshot.Class, content string) (*corev1.SecretReference, error) {
	return readSecret(snapshot.Lister, class, snapshot.Tokens(content, corev1.ObjectReference{}))
}

// AddMetadata implements ContentKind.
func (SingleKind) AddMetadata(parameters map[string]string, c *Content) {
	snapshot.AddMetadataParameters(parameters, c.Ref, c.Object.GetName())
}

// Create implements ContentKind.
func (SingleKind) Create(ctx context.Context, driver *csi.Driver, r Request) (*Snapshot, error) {
	made, err := driver.CreateSnapshot(ctx, &csipb.CreateSnapshotRequest{
		Name: r.Name, SourceVolumeId: r.Volumes[0], Parameters: r.Parameters, Secrets: r.Secrets,
	})
	if err != nil {
		return nil, err
	}
	return snapshotOf(made), nil
}

// Get implements ContentKind.
func (SingleKind) Get(ctx context.Context, driver *csi.Driver, c *Content, secrets map[string]string) (*Snapshot, error) {
	found, err := driver.GetSnapshot(ctx, &csipb.GetSnapshotRequest{SnapshotId: c.handle(), Secrets: secrets})
	if err != nil {
		return nil, err
	}
	return snapshotOf(found), nil
}

// Delete implements ContentKind.
func (SingleKind) Delete(ctx context.Context, driver *csi.ConditionalDriver, c *Content, secrets map[string]string) error {
	return driver.DeleteSnapshot(ctx, &csipb.DeleteSnapshotRequest{SnapshotId: c.handle(), Secrets: secrets})
}

// Discard implements ContentKind.
func (SingleKind) Discard(ctx context.Context, driver *csi.ConditionalDriver, bad *csi.InvalidResponse, secrets map[string]string) error {
	return driver.DeleteSnapshot(ctx, &csipb.DeleteSnapshotRequest{SnapshotId: bad.ID, Secrets: secrets})
}

// ListIDs implements ContentKind.
func (SingleKind) ListIDs(ctx context.Context, driver *csi.Driver, c *Content, secrets map[string]string) (ids []string, ok bool, err error) {
	if !driver.Info().Has(csipb.ControllerServiceCapability_RPC_LIST_SNAPSHOTS) || len(c.Volumes) == 0 {
		return nil, false, nil
	}
	for entry, err := range driver.ListSnapshots(ctx, &csipb.ListSnapshotsRequest{SourceVolumeId: c.Volumes[0], Secrets: secrets}) {
		if err != nil {
			return nil, false, err
		}
		ids = append(ids, entry.GetSnapshot().GetSnapshotId())
	}
	return ids, true, nil
}

// StatusPatch implements ContentKind. Handle, creation time and group are never changed once
// they are set: others rely on them.
func (SingleKind) StatusPatch(c *Content, made *Snapshot) map[string]any {
	status := map[string]any{"readyToUse": made.Ready}
	if c.Handle == "" {
		status["snapshotHandle"] = made.Handle
	}
	if c.Created == 0 {
		status["creationTime"] = made.Created
	}
	if made.Size > 0 {
		status["restoreSize"] = made.Size
	}
	if c.PreProvisioned != "" && c.GroupHandle == "" && made.GroupHandle != "" {
		status["volumeGroupSnapshotHandle"] = made.GroupHandle
	}
	return status
}

func snapshotOf(s *csipb.Snapshot) *Snapshot {
	return &Snapshot{
		Handle: s.GetSnapshotId(), Ready: s.GetReadyToUse(), Created: csi.Nanoseconds(s.GetCreationTime()),
		Size: s.GetSizeBytes(), GroupHandle: s.GetGroupSnapshotId(),
	}
}
