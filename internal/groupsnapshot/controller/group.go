package controller

import (
	"context"

	groupv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
	"github.com/holdfast-io/holdfast/internal/snapshot/claimprotection"
	snapshotcontroller "github.com/holdfast-io/holdfast/internal/snapshot/controller"
)

// groupKind is the SnapshotKind of VolumeGroupSnapshots.
type groupKind struct {
	client    client.Client
	apiReader client.Reader // uncached
	events    *kube.Events
	options   *snapshotcontroller.Options
	claims    *claimprotection.Controller
	info      snapshotcontroller.KindInfo
}

var _ snapshotcontroller.SnapshotKind = (*groupKind)(nil)

// kindInfo is the KindInfo for a version of the API.
func kindInfo(version schema.GroupVersion) snapshotcontroller.KindInfo {
	return snapshotcontroller.KindInfo{
		Noun: "group snapshot", Name: "groupsnapshot", APIVersion: version.String(),
		Snapshot: "VolumeGroupSnapshot", Content: "VolumeGroupSnapshotContent", Class: "VolumeGroupSnapshotClass",
		Keys: snapshot.Group, Operations: snapshot.GroupOperations,
		RefField: "volumeGroupSnapshotRef", ClassField: "volumeGroupSnapshotClassName", ClassImmutable: true,
		PreProvisionedSource: "groupSnapshotHandles", DynamicSource: "volumes",
		Finalizers: []string{snapshot.GroupBoundFinalizer}, OwnFinalizers: []string{snapshot.GroupBoundFinalizer},
		ReadFromAPIServer: true, // See the field.
		Reasons: snapshotcontroller.Reasons{
			Creating: "CreatingGroupSnapshot", Created: "GroupSnapshotCreated", Ready: "GroupSnapshotReady",
			Validation: reasonValidation, Class: "GetGroupSnapshotClassFailed", DefaultClass: "SetDefaultGroupSnapshotClassFailed",
			Create: reasonCreate, ContentCreation: "GroupSnapshotContentCreationFailed", BindFailed: "GroupSnapshotBindFailed",
			ContentMissing: "GroupSnapshotContentMissing", ContentMisbound: "GroupSnapshotContentMisbound", ContentMismatch: "GroupSnapshotContentMismatch",
			Misbound: "GroupSnapshotMisbound", HandleSet: "GroupSnapshotHandleSet",
			ContentDeletion: "GroupSnapshotContentObjectDeleteError", DeletionPending: reasonDeletePending,
		},
		// Not in upstream. A csi-snapshotter whose driver cannot create group snapshots ignores
		// their contents.
		SidecarWait: snapshot.SidecarWait{
			Reason: "GroupSnapshotNotServed", ContentKind: "VolumeGroupSnapshotContent",
			Needs: ", with group snapshots turned on, and does the driver make them",
		},
	}
}

const (
	reasonValidation    = "GroupSnapshotValidationError"
	reasonCreate        = "CreateGroupSnapshotContentFailed"
	reasonDeletePending = "SnapshotDeletePending"
	reasonDelete        = "SnapshotDeleteError" // on members
)

// Info implements SnapshotKind.
func (k *groupKind) Info() *snapshotcontroller.KindInfo { return &k.info }

// EmptySnapshot implements SnapshotKind.
func (*groupKind) EmptySnapshot() client.Object { return &groupv1.VolumeGroupSnapshot{} }

// EmptyContent implements SnapshotKind.
func (*groupKind) EmptyContent() client.Object { return &groupv1.VolumeGroupSnapshotContent{} }

// EmptyContentList implements SnapshotKind.
func (*groupKind) EmptyContentList() client.ObjectList {
	return &groupv1.VolumeGroupSnapshotContentList{}
}

// ReadSnapshot implements SnapshotKind.
func (*groupKind) ReadSnapshot(o client.Object) *snapshotcontroller.Snapshot {
	of := asGroup(o)
	s := &snapshotcontroller.Snapshot{
		Object: of, Class: ptr.Deref(of.Spec.VolumeGroupSnapshotClassName, ""),
		PreProvisionedContent: ptr.Deref(of.Spec.Source.VolumeGroupSnapshotContentName, ""), ContentName: contentName(of),
	}
	if status := of.Status; status != nil {
		s.Status, s.Error, s.BoundContent = status, status.Error, ptr.Deref(status.BoundVolumeGroupSnapshotContentName, "")
		s.Ready = ptr.Deref(status.ReadyToUse, false)
		s.Created = s.Ready || status.CreationTime != nil
	}
	return s
}

func contentName(of *groupv1.VolumeGroupSnapshot) string {
	if name := of.Spec.Source.VolumeGroupSnapshotContentName; name != nil {
		return *name
	}
	if of.Status != nil {
		if name := ptr.Deref(of.Status.BoundVolumeGroupSnapshotContentName, ""); name != "" {
			return name
		}
	}
	return snapshot.GroupContentName(of.UID)
}

// ReadContent implements SnapshotKind.
func (*groupKind) ReadContent(o client.Object) *snapshotcontroller.Content {
	content := asGroupContent(o)
	c := &snapshotcontroller.Content{
		Object: content, Ref: content.Spec.VolumeGroupSnapshotRef, Driver: content.Spec.Driver,
		Class:          ptr.Deref(content.Spec.VolumeGroupSnapshotClassName, ""),
		Retain:         content.Spec.DeletionPolicy == snapshotv1.VolumeSnapshotContentRetain,
		PreProvisioned: content.Spec.Source.GroupSnapshotHandles != nil,
		Node:           content.Labels[snapshot.ManagedBy],
	}
	c.MayExistAtDriver = !c.Retain && (isTaken(content) || c.PreProvisioned || snapshot.Group.CreationStarted(content))
	if content.Status != nil {
		c.Status, c.Error = content.Status, content.Status.Error
	}
	return c
}

// GetClass implements SnapshotKind.
func (k *groupKind) GetClass(ctx context.Context, name string) (*snapshot.Class, error) {
	return snapshot.ReadGroupClass(ctx, k.client, name)
}

// ListClasses implements SnapshotKind.
func (k *groupKind) ListClasses(ctx context.Context) ([]*snapshot.Class, error) {
	list := &groupv1.VolumeGroupSnapshotClassList{}
	if err := k.client.List(ctx, list); err != nil {
		return nil, err
	}
	var all []*snapshot.Class
	for i := range list.Items {
		all = append(all, snapshot.GroupClassOf(&list.Items[i]))
	}
	return all, nil
}

// SnapshotterSecret implements SnapshotKind.
func (*groupKind) SnapshotterSecret(class *snapshot.Class, content string, ref corev1.ObjectReference) (*corev1.SecretReference, error) {
	return snapshot.GroupSnapshotter.Resolve(class.Parameters, snapshot.GroupTokens(content, ref))
}

// NewContent implements SnapshotKind.
func (*groupKind) NewContent(d *snapshotcontroller.ContentDraft) client.Object {
	content := &groupv1.VolumeGroupSnapshotContent{
		ObjectMeta: d.Meta,
		Spec: groupv1.VolumeGroupSnapshotContentSpec{
			VolumeGroupSnapshotRef:       d.Ref,
			VolumeGroupSnapshotClassName: &d.Class.Name,
			DeletionPolicy:               d.Class.Policy,
			Driver:                       d.Class.Driver,
		},
	}
	for _, source := range d.Sources {
		content.Spec.Source.VolumeHandles = append(content.Spec.Source.VolumeHandles, source.Volume.Spec.CSI.VolumeHandle)
	}
	return content
}

// WithContentStatus implements SnapshotKind. The time does not change once it is set. A
// group becomes ready when all of its members exist and are ready.
func (k *groupKind) WithContentStatus(of *snapshotcontroller.Snapshot, content *snapshotcontroller.Content, unready []string) *snapshotcontroller.Snapshot {
	s := asGroup(of.Object).DeepCopy()
	if s.Status == nil {
		s.Status = &groupv1.VolumeGroupSnapshotStatus{}
	}
	name, now := content.Object.GetName(), s.Status
	now.BoundVolumeGroupSnapshotContentName, now.ReadyToUse, now.Error = &name, ptr.To(false), nil
	if from := asGroupContent(content.Object).Status; from != nil {
		now.ReadyToUse = ptr.To(ptr.Deref(from.ReadyToUse, false) && (of.Ready || len(unready) == 0))
		if !*now.ReadyToUse {
			now.Error = snapshot.CopyError(from.Error)
		}
		if now.CreationTime == nil {
			now.CreationTime = from.CreationTime
		}
	}
	return k.ReadSnapshot(s)
}

// unfinishedOperations is how many operations on groups have not ended.
func (k *groupKind) unfinishedOperations(ctx context.Context) int {
	all := &groupv1.VolumeGroupSnapshotList{}
	if k.client.List(ctx, all, client.UnsafeDisableDeepCopy) != nil {
		return 0 // The cache has not synced yet.
	}
	n := 0
	for i := range all.Items {
		if p := k.info.Progress(k.ReadSnapshot(&all.Items[i])); k.options.IsSelected(all.Items[i].Namespace) {
			n += len(p.Unfinished())
		}
	}
	return n
}

// asGroup is the typed group, and asGroupContent the typed content.
func asGroup(o client.Object) *groupv1.VolumeGroupSnapshot {
	return o.(*groupv1.VolumeGroupSnapshot) //nolint:forcetypeassert // The reconciler only passes what EmptySnapshot has returned.
}

func asGroupContent(o client.Object) *groupv1.VolumeGroupSnapshotContent {
	return o.(*groupv1.VolumeGroupSnapshotContent) //nolint:forcetypeassert // The reconciler only passes what EmptyContent has returned.
}
