package controller

import (
	"context"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
	"github.com/holdfast-io/holdfast/internal/snapshot/claimprotection"
)

// singleKind is the SnapshotKind of VolumeSnapshots.
type singleKind struct {
	client    client.Client
	apiReader client.Reader // uncached
	options   *Options
	claims    *claimprotection.Controller
}

var _ SnapshotKind = (*singleKind)(nil)

var singleInfo = KindInfo{
	Noun: "snapshot", Name: "snapshot", APIVersion: snapshotv1.SchemeGroupVersion.String(),
	Snapshot: "VolumeSnapshot", Content: "VolumeSnapshotContent", Class: "VolumeSnapshotClass",
	Keys: snapshot.Single, Operations: snapshot.SingleOperations,
	RefField: "volumeSnapshotRef", ClassField: "volumeSnapshotClassName", PreProvisionedSource: "a snapshotHandle", DynamicSource: "a volume",
	Finalizers: []string{snapshot.AsSourceFinalizer}, DeletePolicyFinalizers: []string{snapshot.BoundFinalizer},
	OwnFinalizers: []string{snapshot.AsSourceFinalizer, snapshot.BoundFinalizer, snapshot.InGroupFinalizer},
	Reasons: Reasons{
		Creating: "CreatingSnapshot", Created: "SnapshotCreated", Ready: "SnapshotReady",
		Validation: "SnapshotValidationError", Class: "GetSnapshotClassFailed", DefaultClass: "SetDefaultSnapshotClassFailed",
		Create: snapshot.ReasonContentCreation, ContentCreation: snapshot.ReasonContentCreation, BindFailed: "SnapshotBindFailed",
		ContentMissing: "SnapshotContentMissing", ContentMisbound: "SnapshotContentMisbound", ContentMismatch: "SnapshotContentMismatch",
		Misbound: "SnapshotMisbound", HandleSet: "SnapshotHandleSet",
		ContentDeletion: "SnapshotContentObjectDeleteError", DeletionPending: "SnapshotDeletePending",
	},
	// Not in upstream, where a snapshot without a csi-snapshotter waits in silence.
	SidecarWait: snapshot.SidecarWait{Reason: "SnapshotNotServed", ContentKind: "VolumeSnapshotContent"},
}

// Info implements SnapshotKind.
func (*singleKind) Info() *KindInfo { return &singleInfo }

// EmptySnapshot implements SnapshotKind.
func (*singleKind) EmptySnapshot() client.Object { return &snapshotv1.VolumeSnapshot{} }

// EmptyContent implements SnapshotKind.
func (*singleKind) EmptyContent() client.Object { return &snapshotv1.VolumeSnapshotContent{} }

// EmptyContentList implements SnapshotKind.
func (*singleKind) EmptyContentList() client.ObjectList {
	return &snapshotv1.VolumeSnapshotContentList{}
}

// ReadSnapshot implements SnapshotKind.
func (*singleKind) ReadSnapshot(o client.Object) *Snapshot {
	of := asSnapshot(o)
	s := &Snapshot{
		Object: of, Class: ptr.Deref(of.Spec.VolumeSnapshotClassName, ""), PreProvisionedContent: ptr.Deref(of.Spec.Source.VolumeSnapshotContentName, ""),
		ContentName: contentName(of), IsMember: isMember(of), Created: isTaken(of), Ready: isReady(of),
	}
	if of.Status != nil {
		s.Status, s.Error, s.BoundContent = of.Status, of.Status.Error, ptr.Deref(of.Status.BoundVolumeSnapshotContentName, "")
	}
	return s
}

// ReadContent implements SnapshotKind.
func (*singleKind) ReadContent(o client.Object) *Content {
	content := o.(*snapshotv1.VolumeSnapshotContent) //nolint:forcetypeassert // The reconciler only passes what EmptyContent has returned.
	_, member := content.Annotations[snapshot.GroupHandleAnnotation]
	c := &Content{
		Object: content, Ref: content.Spec.VolumeSnapshotRef, Driver: content.Spec.Driver,
		Class:          ptr.Deref(content.Spec.VolumeSnapshotClassName, ""),
		Retain:         content.Spec.DeletionPolicy == snapshotv1.VolumeSnapshotContentRetain,
		PreProvisioned: content.Spec.Source.SnapshotHandle != nil || member,
		Node:           content.Labels[snapshot.ManagedBy],
	}
	if content.Status != nil {
		c.Status, c.Error = content.Status, content.Status.Error
	}
	known := content.Status != nil && content.Status.SnapshotHandle != nil
	c.MemberWithoutHandle = member && !known
	c.MayExistAtDriver = !c.Retain && !member && (known || c.PreProvisioned || singleInfo.Keys.CreationStarted(content)) // A member is deleted with its group.
	return c
}

// GetClass implements SnapshotKind.
func (k *singleKind) GetClass(ctx context.Context, name string) (*snapshot.Class, error) {
	return snapshot.ReadClass(ctx, k.client, name)
}

// ListClasses implements SnapshotKind.
func (k *singleKind) ListClasses(ctx context.Context) ([]*snapshot.Class, error) {
	list := &snapshotv1.VolumeSnapshotClassList{}
	if err := k.client.List(ctx, list); err != nil {
		return nil, err
	}
	var all []*snapshot.Class
	for i := range list.Items {
		all = append(all, snapshot.ClassOf(&list.Items[i]))
	}
	return all, nil
}

// SnapshotterSecret implements SnapshotKind.
func (*singleKind) SnapshotterSecret(class *snapshot.Class, content string, ref corev1.ObjectReference) (*corev1.SecretReference, error) {
	return snapshot.Snapshotter.Resolve(class.Parameters, snapshot.Tokens(content, ref))
}

// Sources implements SnapshotKind. The cache is good enough: the claim is written before
// the snapshot is taken, and that fails if it is another claim.
func (k *singleKind) Sources(ctx context.Context, _ client.Reader, of *Snapshot) ([]snapshot.Source, error) {
	source := snapshot.Source{Name: ptr.Deref(asSnapshot(of.Object).Spec.Source.PersistentVolumeClaimName, "")}
	if err := kube.GetIfExists(ctx, k.client, client.ObjectKey{Namespace: of.Object.GetNamespace(), Name: source.Name}, &source.Claim); err != nil {
		return nil, err
	}
	if source.Claim == nil {
		return []snapshot.Source{source}, nil
	}
	err := kube.GetIfExists(ctx, k.client, client.ObjectKey{Name: source.Claim.Spec.VolumeName}, &source.Volume)
	return []snapshot.Source{source}, err
}

// Validate implements SnapshotKind.
func (*singleKind) Validate(of *Snapshot, sources []snapshot.Source) *snapshot.Problem {
	source := &sources[0]
	if source.Name == "" {
		return snapshot.Problemf(singleInfo.Reasons.Validation, "the snapshot names neither a claim nor a content as its source: one of them is needed")
	}
	if claim := source.Claim; claim != nil && !snapshot.MatchesClaim(of.Object, claim) {
		return snapshot.Problemf(singleInfo.Reasons.Validation,
			"label %s says that the snapshot is of the claim with UID %s, but claim %s now has UID %s: it was deleted and created again, so no snapshot is taken; "+
				"delete this VolumeSnapshot, or remove the label to take a snapshot of the new claim",
			snapshot.ClaimUID, of.Object.GetLabels()[snapshot.ClaimUID], source.Name, claim.UID)
	}
	return source.Check()
}

// NewContent implements SnapshotKind.
func (k *singleKind) NewContent(d *ContentDraft) client.Object {
	volume := d.Sources[0].Volume
	content := &snapshotv1.VolumeSnapshotContent{
		ObjectMeta: d.Meta,
		Spec: snapshotv1.VolumeSnapshotContentSpec{
			VolumeSnapshotRef:       d.Ref,
			Source:                  snapshotv1.VolumeSnapshotContentSource{VolumeHandle: &volume.Spec.CSI.VolumeHandle},
			VolumeSnapshotClassName: &d.Class.Name,
			DeletionPolicy:          d.Class.Policy,
			Driver:                  d.Class.Driver,
		},
	}
	if k.options.RecordMode {
		content.Spec.SourceVolumeMode = volume.Spec.VolumeMode
	}
	return content
}

// CreateMembers implements SnapshotKind.
func (*singleKind) CreateMembers(context.Context, *Snapshot, *Content) ([]string, error) {
	return nil, nil
}

// WithContentStatus implements SnapshotKind. The time and the group do not change once
// they are set.
func (k *singleKind) WithContentStatus(of *Snapshot, content *Content, _ []string) *Snapshot {
	s := asSnapshot(of.Object).DeepCopy()
	if s.Status == nil {
		s.Status = &snapshotv1.VolumeSnapshotStatus{}
	}
	name, now := content.Object.GetName(), s.Status
	now.BoundVolumeSnapshotContentName, now.ReadyToUse, now.Error = &name, ptr.To(false), nil
	if from, ok := content.Status.(*snapshotv1.VolumeSnapshotContentStatus); ok {
		copyContentStatus(now, from, snapshot.GroupOf(s))
	}
	return k.ReadSnapshot(s)
}

func copyContentStatus(now *snapshotv1.VolumeSnapshotStatus, from *snapshotv1.VolumeSnapshotContentStatus, owner *metav1.OwnerReference) {
	if owner != nil && from.VolumeGroupSnapshotHandle != nil {
		now.VolumeGroupSnapshotName = &owner.Name
	}
	now.ReadyToUse = ptr.To(ptr.Deref(from.ReadyToUse, false))
	if !*now.ReadyToUse {
		now.Error = snapshot.CopyError(from.Error)
	}
	if at := ptr.Deref(from.CreationTime, 0); now.CreationTime == nil && at > 0 {
		now.CreationTime = ptr.To(metav1.NewTime(time.Unix(0, at).Truncate(time.Second)))
	}
	if size := ptr.Deref(from.RestoreSize, 0); size > 0 {
		now.RestoreSize = resource.NewQuantity(size, resource.BinarySI)
	}
}

// AfterDeletion implements SnapshotKind. Everything that belongs to a snapshot is deleted
// before it.
func (*singleKind) AfterDeletion(context.Context, client.ObjectKey) error { return nil }

// asSnapshot is the typed snapshot.
func asSnapshot(o client.Object) *snapshotv1.VolumeSnapshot {
	return o.(*snapshotv1.VolumeSnapshot) //nolint:forcetypeassert // The reconciler only passes what EmptySnapshot has returned.
}

func contentName(of *snapshotv1.VolumeSnapshot) string {
	if name := of.Spec.Source.VolumeSnapshotContentName; name != nil {
		return *name
	}
	if of.Status != nil {
		if name := ptr.Deref(of.Status.BoundVolumeSnapshotContentName, ""); name != "" {
			return name
		}
	}
	if isMember(of) {
		return snapshot.MemberContentName(of.Name)
	}
	return snapshot.ContentName(of.UID)
}

func isMember(of *snapshotv1.VolumeSnapshot) bool { return snapshot.GroupOf(of) != nil }

// isTaken reports whether the snapshot is taken, so that it does not need its claim any
// more. The driver may still upload it.
func isTaken(of *snapshotv1.VolumeSnapshot) bool {
	return of.Status != nil && (of.Status.CreationTime != nil || isReady(of))
}

func isReady(of *snapshotv1.VolumeSnapshot) bool {
	return of.Status != nil && ptr.Deref(of.Status.ReadyToUse, false)
}
