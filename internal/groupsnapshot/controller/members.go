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

// Gather implements Kind: it sees to the members of a group that is cut. Those that
// the driver has told are made, and those that an administrator has made are claimed.
func (k *group) Gather(ctx context.Context, of *snapshotcontroller.Snapshot, c *snapshotcontroller.Content) (unready []string, err error) {
	group, content := typed(of.Object), typedContent(c.Object)
	if !isCut(content) || content.DeletionTimestamp != nil {
		return nil, nil
	}
	if of.PreProvisioned != "" {
		return nil, k.join(ctx, group, content)
	}
	for i := range content.Status.VolumeSnapshotInfoList {
		m := &member{group: group, content: content, info: &content.Status.VolumeSnapshotInfoList[i]}
		one, err := k.keep(ctx, m)
		if err != nil {
			return nil, err
		}
		if one.DeletionTimestamp == nil && (one.Status == nil || !ptr.Deref(one.Status.ReadyToUse, false)) {
			unready = append(unready, one.Name)
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

// keep makes what there is not of a member, and has its content say what the
// group's says of it. From there it goes on as any other snapshot.
func (k *group) keep(ctx context.Context, m *member) (*snapshotv1.VolumeSnapshot, error) {
	name, contentName := m.names()
	var of *snapshotv1.VolumeSnapshot
	var content *snapshotv1.VolumeSnapshotContent
	key, contentKey := client.ObjectKey{Namespace: m.group.Namespace, Name: name}, client.ObjectKey{Name: contentName}
	if err := kube.GetIfExists(ctx, k.client, contentKey, &content); err != nil {
		return nil, err
	}
	if err := kube.GetIfExists(ctx, k.client, key, &of); err != nil {
		return nil, err
	}
	if of == nil {
		var err error
		if of, err = k.makeMember(ctx, m, content); err != nil {
			return nil, err
		}
	}
	if owner := snapshot.GroupOf(of); owner == nil || owner.UID != m.group.UID {
		return nil, snapshot.Problemf(reasonCreate, "VolumeSnapshot %s has the name of a member of this group and is none: delete it", name)
	}
	if content == nil {
		var err error
		if content, err = k.makeContent(ctx, m, of); err != nil {
			return nil, err
		}
	}
	if err := k.bind(ctx, of, content); err != nil {
		return nil, err
	}
	return of, k.reportMember(ctx, m, content)
}

// makeMember makes the VolumeSnapshot of a member. One that has been there, as its
// content shows, and was taken away by force, is not made again: another snapshot
// could not have that content.
func (k *group) makeMember(ctx context.Context, m *member, content *snapshotv1.VolumeSnapshotContent) (*snapshotv1.VolumeSnapshot, error) {
	volume, err := k.volumeOf(ctx, m.content.Spec.Driver, m.info.VolumeHandle)
	if err != nil {
		return nil, err
	}
	made := k.member(m, volume)
	if content == nil || content.Spec.VolumeSnapshotRef.UID == "" {
		if err = k.client.Create(ctx, made); err == nil {
			return made, nil
		}
		if !apierrors.IsAlreadyExists(err) {
			return nil, fmt.Errorf("making VolumeSnapshot %s of the group: %w", made.Name, err)
		}
	}
	var there *snapshotv1.VolumeSnapshot
	if err := kube.GetIfExists(ctx, k.live, client.ObjectKeyFromObject(made), &there); err != nil {
		return nil, err
	}
	if there == nil {
		return nil, snapshot.Problemf(reasonCreate, "VolumeSnapshot %s of the group is gone, and its VolumeSnapshotContent is left: the group is not whole", made.Name)
	}
	return there, nil
}

// member is the VolumeSnapshot of one, with all that keeps it. Its source is the
// claim; where the claim's volume is gone, only its content is left as that.
func (k *group) member(m *member, volume *corev1.PersistentVolume) *snapshotv1.VolumeSnapshot {
	name, content := m.names()
	made := &snapshotv1.VolumeSnapshot{ObjectMeta: metav1.ObjectMeta{
		Namespace: m.group.Namespace, Name: name,
		Finalizers:      []string{snapshot.InGroupFinalizer, snapshot.AsSourceFinalizer},
		OwnerReferences: []metav1.OwnerReference{k.owner(m.group)},
	}}
	if m.content.Spec.DeletionPolicy == snapshotv1.VolumeSnapshotContentDelete {
		made.Finalizers = append(made.Finalizers, snapshot.BoundFinalizer)
	}
	if volume != nil && volume.Spec.ClaimRef != nil && volume.Spec.ClaimRef.Namespace == m.group.Namespace {
		made.Spec.Source.PersistentVolumeClaimName = &volume.Spec.ClaimRef.Name
	} else {
		made.Spec.Source.VolumeSnapshotContentName = &content
	}
	return made
}

func (k *group) owner(group *groupv1.VolumeGroupSnapshot) metav1.OwnerReference {
	return metav1.OwnerReference{APIVersion: k.words.APIVersion, Kind: k.words.Snapshot, Name: group.Name, UID: group.UID}
}

// volumeOf is the volume that a driver knows by a handle; nil if it is gone.
func (k *group) volumeOf(ctx context.Context, driver, handle string) (*corev1.PersistentVolume, error) {
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

// makeContent makes the content of a member. It names no class: it is never cut
// and never deleted by itself. Its secret is the group's, for reading.
func (k *group) makeContent(ctx context.Context, m *member, of *snapshotv1.VolumeSnapshot) (*snapshotv1.VolumeSnapshotContent, error) {
	_, name := m.names()
	made := &snapshotv1.VolumeSnapshotContent{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Finalizers: []string{snapshot.Single.Finalizer},
			Annotations: map[string]string{snapshot.MemberOf: *m.content.Status.VolumeGroupSnapshotHandle},
		},
		Spec: snapshotv1.VolumeSnapshotContentSpec{
			VolumeSnapshotRef: corev1.ObjectReference{
				APIVersion: snapshotv1.SchemeGroupVersion.String(), Kind: "VolumeSnapshot",
				Namespace: of.Namespace, Name: of.Name, UID: of.UID,
			},
			Source:         snapshotv1.VolumeSnapshotContentSource{VolumeHandle: &m.info.VolumeHandle},
			DeletionPolicy: m.content.Spec.DeletionPolicy,
			Driver:         m.content.Spec.Driver,
		},
	}
	if secret := snapshot.Group.SecretOf(m.content.Annotations); secret != nil {
		made.Annotations[snapshot.Single.SecretName], made.Annotations[snapshot.Single.SecretNamespace] = secret.Name, secret.Namespace
	}
	if node, ok := m.content.Labels[snapshot.ManagedBy]; ok {
		made.Labels = map[string]string{snapshot.ManagedBy: node}
	}
	volume, err := k.volumeOf(ctx, m.content.Spec.Driver, m.info.VolumeHandle)
	if err != nil {
		return nil, err
	}
	if volume != nil && k.options.RecordMode {
		made.Spec.SourceVolumeMode = volume.Spec.VolumeMode
	}
	err = k.client.Create(ctx, made)
	if err == nil {
		return made, nil
	}
	if !apierrors.IsAlreadyExists(err) {
		return nil, fmt.Errorf("making VolumeSnapshotContent %s of the group: %w", name, err)
	}
	var there *snapshotv1.VolumeSnapshotContent
	if err := kube.GetIfExists(ctx, k.live, client.ObjectKey{Name: name}, &there); err != nil {
		return nil, err
	}
	if there == nil {
		return nil, kube.Conflict("VolumeSnapshotContent %s was there and is gone", name)
	}
	return there, nil
}

// bind says in a member's content whose it is. Another program makes the content
// first, and says that last.
func (k *group) bind(ctx context.Context, of *snapshotv1.VolumeSnapshot, content *snapshotv1.VolumeSnapshotContent) error {
	ref := content.Spec.VolumeSnapshotRef
	switch {
	case !snapshot.RefersTo(ref, of.Namespace, of.Name, of.UID):
		return snapshot.Problemf(reasonCreate, "VolumeSnapshotContent %s of the group is bound to another snapshot than %s, which has its name: the group is not whole", content.Name, of.Name)
	case ref.UID != "":
		return nil
	}
	return kube.WrapWriteError(kube.MergePatch(ctx, k.client, content, map[string]any{
		"metadata": map[string]any{"resourceVersion": content.ResourceVersion},
		"spec":     map[string]any{"volumeSnapshotRef": map[string]any{"uid": of.UID}},
	}), "binding VolumeSnapshotContent "+content.Name)
}

// reportMember writes what the group's content says of a member to the member's
// own, if that is news.
func (k *group) reportMember(ctx context.Context, m *member, content *snapshotv1.VolumeSnapshotContent) error {
	change := m.status(content.Status)
	if len(change) == 0 {
		return nil
	}
	return kube.WrapWriteError(kube.PatchStatusIfUnchanged(ctx, k.client, content, change), "writing the status of VolumeSnapshotContent "+content.Name)
}

// status is what is to be written to the status of a member's content. What has
// been said is not said again, and a member that was ready stays so; it is also
// if its group is as a whole.
func (m *member) status(now *snapshotv1.VolumeSnapshotContentStatus) map[string]any {
	if now == nil {
		now = &snapshotv1.VolumeSnapshotContentStatus{}
	}
	change := map[string]any{}
	once(change, "snapshotHandle", now.SnapshotHandle, m.info.SnapshotHandle)
	once(change, "volumeGroupSnapshotHandle", now.VolumeGroupSnapshotHandle, *m.content.Status.VolumeGroupSnapshotHandle)
	once(change, "creationTime", now.CreationTime, ptr.Deref(m.info.CreationTime, 0))
	once(change, "restoreSize", now.RestoreSize, ptr.Deref(m.info.RestoreSize, 0))
	ready := ptr.Deref(m.info.ReadyToUse, false) || ptr.Deref(m.content.Status.ReadyToUse, false)
	if now.ReadyToUse == nil || ready && !*now.ReadyToUse {
		change["readyToUse"] = ready
	}
	return change
}

// once puts a value into a change unless one has been said before, or there is
// none to say.
func once[T comparable](change map[string]any, field string, before *T, value T) {
	var none T
	if before == nil && value != none {
		change[field] = value
	}
}

// join makes members of the snapshots that an administrator has made of a group
// that was there before: those whose contents say that they are part of it.
func (k *group) join(ctx context.Context, group *groupv1.VolumeGroupSnapshot, content *groupv1.VolumeGroupSnapshotContent) error {
	contents := &snapshotv1.VolumeSnapshotContentList{}
	key := handleKey(content.Spec.Driver, *content.Status.VolumeGroupSnapshotHandle)
	if err := k.client.List(ctx, contents, client.MatchingFields{contentsByGroup: key}); err != nil {
		return fmt.Errorf("listing the contents of the group's members: %w", err)
	}
	for _, one := range contents.Items {
		ref := one.Spec.VolumeSnapshotRef
		if ref.Namespace != group.Namespace {
			continue
		}
		var of *snapshotv1.VolumeSnapshot
		if err := kube.GetIfExists(ctx, k.client, client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}, &of); err != nil {
			return err
		}
		if of == nil || of.UID != ref.UID || of.DeletionTimestamp != nil || snapshot.GroupOf(of) != nil {
			continue
		}
		if err := k.own(ctx, group, of); err != nil {
			return err
		}
	}
	return nil
}

// own makes a snapshot a member of a group.
func (k *group) own(ctx context.Context, group *groupv1.VolumeGroupSnapshot, of *snapshotv1.VolumeSnapshot) error {
	finalizers := of.Finalizers
	if !slices.Contains(finalizers, snapshot.InGroupFinalizer) {
		finalizers = append(slices.Clone(finalizers), snapshot.InGroupFinalizer)
	}
	return kube.WrapWriteError(kube.MergePatch(ctx, k.client, of, map[string]any{"metadata": map[string]any{
		"resourceVersion": of.ResourceVersion, "finalizers": finalizers,
		"ownerReferences": append(slices.Clone(of.OwnerReferences), k.owner(group)),
	}}), "making VolumeSnapshot "+of.Name+" a member of the group")
}
