package controller

import (
	"context"
	"fmt"
	"slices"

	groupv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
	snapshotcontroller "github.com/holdfast-io/holdfast/internal/snapshot/controller"
)

// CreateMembers implements SnapshotKind. It creates the members that the driver has
// reported. For a pre-provisioned group it makes members of the snapshots that an
// administrator has created.
func (k *groupKind) CreateMembers(ctx context.Context, of *snapshotcontroller.Snapshot, c *snapshotcontroller.Content) (unready []string, err error) {
	group, content := asGroup(of.Object), asGroupContent(c.Object)
	if !isTaken(content) || content.DeletionTimestamp != nil {
		return nil, nil
	}
	if of.PreProvisionedContent != "" {
		return nil, k.addPreProvisionedMembers(ctx, group, content)
	}
	for i := range content.Status.VolumeSnapshotInfoList {
		m := &member{group: group, content: content, info: &content.Status.VolumeSnapshotInfoList[i]}
		s, err := k.ensureMember(ctx, m)
		if err != nil {
			return nil, err
		}
		if s.DeletionTimestamp == nil && (s.Status == nil || !ptr.Deref(s.Status.ReadyToUse, false)) {
			unready = append(unready, s.Name)
		}
	}
	return unready, nil
}

// A member is one snapshot of a group.
type member struct {
	group   *groupv1.VolumeGroupSnapshot
	content *groupv1.VolumeGroupSnapshotContent
	info    *groupv1.VolumeSnapshotInfo
}

func (m *member) names() (single, content string) {
	return snapshot.MemberNames(m.group.UID, m.info.VolumeHandle)
}

// ensureMember creates the objects of a member that do not exist, and copies to its
// content what the group's content states about it. The member is then reconciled like
// any other snapshot.
func (k *groupKind) ensureMember(ctx context.Context, m *member) (*snapshotv1.VolumeSnapshot, error) {
	name, contentName := m.names()
	var s *snapshotv1.VolumeSnapshot
	var content *snapshotv1.VolumeSnapshotContent
	key, contentKey := client.ObjectKey{Namespace: m.group.Namespace, Name: name}, client.ObjectKey{Name: contentName}
	if err := kube.GetIfExists(ctx, k.client, contentKey, &content); err != nil {
		return nil, err
	}
	if err := kube.GetIfExists(ctx, k.client, key, &s); err != nil {
		return nil, err
	}
	if s == nil {
		var err error
		if s, err = k.createMemberSnapshot(ctx, m, content); err != nil {
			return nil, err
		}
	}
	if owner := snapshot.GroupOf(s); owner == nil || owner.UID != m.group.UID {
		return nil, snapshot.Problemf(reasonCreate, "VolumeSnapshot %s has the name of a member of this group, but is not a member: delete it", name)
	}
	if content == nil {
		var err error
		if content, err = k.createMemberContent(ctx, m, s); err != nil {
			return nil, err
		}
	}
	if err := k.bindMember(ctx, s, content); err != nil {
		return nil, err
	}
	return s, k.updateMemberStatus(ctx, m, content)
}

// createMemberSnapshot creates the VolumeSnapshot of a member. If the content shows that
// it existed, and was removed in spite of its finalizers, it is not created again: the
// content is bound to the old UID.
func (k *groupKind) createMemberSnapshot(ctx context.Context, m *member, content *snapshotv1.VolumeSnapshotContent) (*snapshotv1.VolumeSnapshot, error) {
	volume, err := k.volumeByHandle(ctx, m.content.Spec.Driver, m.info.VolumeHandle)
	if err != nil {
		return nil, err
	}
	s := k.newMemberSnapshot(m, volume)
	if content == nil || content.Spec.VolumeSnapshotRef.UID == "" {
		if err = k.client.Create(ctx, s); err == nil {
			return s, nil
		}
		if !apierrors.IsAlreadyExists(err) {
			return nil, fmt.Errorf("creating VolumeSnapshot %s of the group: %w", s.Name, err)
		}
	}
	var existing *snapshotv1.VolumeSnapshot
	if err := kube.GetIfExists(ctx, k.apiReader, client.ObjectKeyFromObject(s), &existing); err != nil {
		return nil, err
	}
	if existing == nil {
		return nil, snapshot.Problemf(reasonCreate, "VolumeSnapshot %s of the group is gone, but its VolumeSnapshotContent exists: the group is incomplete", s.Name)
	}
	return existing, nil
}

// newMemberSnapshot is the VolumeSnapshot of a member, with its finalizers. Its source is
// the claim, or its content if the claim's volume is gone.
func (k *groupKind) newMemberSnapshot(m *member, volume *corev1.PersistentVolume) *snapshotv1.VolumeSnapshot {
	name, content := m.names()
	s := &snapshotv1.VolumeSnapshot{ObjectMeta: metav1.ObjectMeta{
		Namespace: m.group.Namespace, Name: name,
		Finalizers:      []string{snapshot.InGroupFinalizer, snapshot.AsSourceFinalizer},
		OwnerReferences: []metav1.OwnerReference{k.ownerReference(m.group)},
	}}
	if m.content.Spec.DeletionPolicy == snapshotv1.VolumeSnapshotContentDelete {
		s.Finalizers = append(s.Finalizers, snapshot.BoundFinalizer)
	}
	if volume != nil && volume.Spec.ClaimRef != nil && volume.Spec.ClaimRef.Namespace == m.group.Namespace {
		s.Spec.Source.PersistentVolumeClaimName = &volume.Spec.ClaimRef.Name
	} else {
		s.Spec.Source.VolumeSnapshotContentName = &content
	}
	return s
}

func (k *groupKind) ownerReference(group *groupv1.VolumeGroupSnapshot) metav1.OwnerReference {
	return metav1.OwnerReference{APIVersion: k.info.APIVersion, Kind: k.info.Snapshot, Name: group.Name, UID: group.UID}
}

// volumeByHandle is the volume with a handle of a driver; nil if there is none.
func (k *groupKind) volumeByHandle(ctx context.Context, driver, handle string) (*corev1.PersistentVolume, error) {
	volumes := &corev1.PersistentVolumeList{}
	if err := k.client.List(ctx, volumes, client.MatchingFields{volumesByHandle: handleHash(handle)}); err != nil {
		return nil, fmt.Errorf("looking for the volume with the handle %s: %w", handle, err)
	}
	for i := range volumes.Items {
		if of := volumes.Items[i].Spec.CSI; of.Driver == driver && of.VolumeHandle == handle {
			return &volumes.Items[i], nil
		}
	}
	return nil, nil
}

// createMemberContent creates the content of a member. It names no class, because it is
// never created or deleted at the driver by itself. Its secret is the group's, which
// reads need.
func (k *groupKind) createMemberContent(ctx context.Context, m *member, s *snapshotv1.VolumeSnapshot) (*snapshotv1.VolumeSnapshotContent, error) {
	_, name := m.names()
	c := &snapshotv1.VolumeSnapshotContent{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Finalizers: []string{snapshot.Single.Finalizer},
			Annotations: map[string]string{snapshot.GroupHandleAnnotation: *m.content.Status.VolumeGroupSnapshotHandle},
		},
		Spec: snapshotv1.VolumeSnapshotContentSpec{
			VolumeSnapshotRef: corev1.ObjectReference{
				APIVersion: snapshotv1.SchemeGroupVersion.String(), Kind: "VolumeSnapshot",
				Namespace: s.Namespace, Name: s.Name, UID: s.UID,
			},
			Source:         snapshotv1.VolumeSnapshotContentSource{VolumeHandle: &m.info.VolumeHandle},
			DeletionPolicy: m.content.Spec.DeletionPolicy,
			Driver:         m.content.Spec.Driver,
		},
	}
	if secret := snapshot.Group.SecretOf(m.content.Annotations); secret != nil {
		c.Annotations[snapshot.Single.SecretName], c.Annotations[snapshot.Single.SecretNamespace] = secret.Name, secret.Namespace
	}
	if node, ok := m.content.Labels[snapshot.ManagedBy]; ok {
		c.Labels = map[string]string{snapshot.ManagedBy: node}
	}
	volume, err := k.volumeByHandle(ctx, m.content.Spec.Driver, m.info.VolumeHandle)
	if err != nil {
		return nil, err
	}
	if volume != nil && k.options.RecordMode {
		c.Spec.SourceVolumeMode = volume.Spec.VolumeMode
	}
	err = k.client.Create(ctx, c)
	if err == nil {
		return c, nil
	}
	if !apierrors.IsAlreadyExists(err) {
		return nil, fmt.Errorf("creating VolumeSnapshotContent %s of the group: %w", name, err)
	}
	var existing *snapshotv1.VolumeSnapshotContent
	if err := kube.GetIfExists(ctx, k.apiReader, client.ObjectKey{Name: name}, &existing); err != nil {
		return nil, err
	}
	if existing == nil {
		return nil, kube.Conflict("VolumeSnapshotContent %s was deleted meanwhile", name)
	}
	return existing, nil
}

// bindMember writes the member's UID to its content. Upstream's controller creates the
// content first, and writes the UID last.
func (k *groupKind) bindMember(ctx context.Context, s *snapshotv1.VolumeSnapshot, content *snapshotv1.VolumeSnapshotContent) error {
	ref := content.Spec.VolumeSnapshotRef
	switch {
	case !snapshot.RefersTo(ref, s.Namespace, s.Name, s.UID):
		return snapshot.Problemf(reasonCreate, "VolumeSnapshotContent %s of the group is bound to another snapshot than %s, which has its name: the group is incomplete", content.Name, s.Name)
	case ref.UID != "":
		return nil
	}
	return kube.WrapWriteError(kube.MergePatch(ctx, k.client, content, map[string]any{
		"metadata": map[string]any{"resourceVersion": content.ResourceVersion},
		"spec":     map[string]any{"volumeSnapshotRef": map[string]any{"uid": s.UID}},
	}), "binding VolumeSnapshotContent "+content.Name)
}

// updateMemberStatus copies what the group's content states about a member to the status
// of the member's content, if it differs.
func (k *groupKind) updateMemberStatus(ctx context.Context, m *member, content *snapshotv1.VolumeSnapshotContent) error {
	change := m.statusPatch(content.Status)
	if len(change) == 0 {
		return nil
	}
	return kube.WrapWriteError(kube.PatchStatusIfUnchanged(ctx, k.client, content, change), "writing the status of VolumeSnapshotContent "+content.Name)
}

// statusPatch is the patch of the status of a member's content. Values that are set are
// not changed, and a member stays ready. It is also ready if the whole group is.
func (m *member) statusPatch(current *snapshotv1.VolumeSnapshotContentStatus) map[string]any {
	if current == nil {
		current = &snapshotv1.VolumeSnapshotContentStatus{}
	}
	change := map[string]any{}
	setOnce(change, "snapshotHandle", current.SnapshotHandle, m.info.SnapshotHandle)
	setOnce(change, "volumeGroupSnapshotHandle", current.VolumeGroupSnapshotHandle, *m.content.Status.VolumeGroupSnapshotHandle)
	setOnce(change, "creationTime", current.CreationTime, ptr.Deref(m.info.CreationTime, 0))
	setOnce(change, "restoreSize", current.RestoreSize, ptr.Deref(m.info.RestoreSize, 0))
	ready := ptr.Deref(m.info.ReadyToUse, false) || ptr.Deref(m.content.Status.ReadyToUse, false)
	if current.ReadyToUse == nil || ready && !*current.ReadyToUse {
		change["readyToUse"] = ready
	}
	return change
}

// setOnce adds a value to a patch, unless there is one already, or the value is empty.
func setOnce[T comparable](change map[string]any, field string, before *T, value T) {
	var none T
	if before == nil && value != none {
		change[field] = value
	}
}

// addPreProvisionedMembers makes members of the snapshots that an administrator has
// created for a pre-provisioned group: those whose contents have the group's handle.
func (k *groupKind) addPreProvisionedMembers(ctx context.Context, group *groupv1.VolumeGroupSnapshot, content *groupv1.VolumeGroupSnapshotContent) error {
	contents := &snapshotv1.VolumeSnapshotContentList{}
	key := handleKey(content.Spec.Driver, *content.Status.VolumeGroupSnapshotHandle)
	if err := k.client.List(ctx, contents, client.MatchingFields{contentsByGroup: key}); err != nil {
		return fmt.Errorf("listing the contents of the group's members: %w", err)
	}
	for _, c := range contents.Items {
		ref := c.Spec.VolumeSnapshotRef
		if ref.Namespace != group.Namespace {
			continue
		}
		var s *snapshotv1.VolumeSnapshot
		if err := kube.GetIfExists(ctx, k.client, client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}, &s); err != nil {
			return err
		}
		if s == nil || s.UID != ref.UID || s.DeletionTimestamp != nil || snapshot.GroupOf(s) != nil {
			continue
		}
		if err := k.addMember(ctx, group, s); err != nil {
			return err
		}
	}
	return nil
}

// addMember makes a snapshot a member of a group.
func (k *groupKind) addMember(ctx context.Context, group *groupv1.VolumeGroupSnapshot, s *snapshotv1.VolumeSnapshot) error {
	finalizers := s.Finalizers
	if !slices.Contains(finalizers, snapshot.InGroupFinalizer) {
		finalizers = append(slices.Clone(finalizers), snapshot.InGroupFinalizer)
	}
	return kube.WrapWriteError(kube.MergePatch(ctx, k.client, s, map[string]any{"metadata": map[string]any{
		"resourceVersion": s.ResourceVersion, "finalizers": finalizers,
		"ownerReferences": append(slices.Clone(s.OwnerReferences), k.ownerReference(group)),
	}}), "making VolumeSnapshot "+s.Name+" a member of the group")
}
