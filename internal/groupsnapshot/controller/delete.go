package controller

import (
	"context"
	"fmt"
	"slices"

	groupv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
	snapshotcontroller "github.com/holdfast-io/holdfast/internal/snapshot/controller"
)

// DeletionBlocker implements SnapshotKind: a group stays while one of its members is
// needed. The members are not deleted before the group is gone, so a provisioner may
// begin to restore one at any time. Whether it has is read from the given reader.
func (k *groupKind) DeletionBlocker(ctx context.Context, from client.Reader, of *snapshotcontroller.Snapshot) (*snapshot.Problem, error) {
	members, err := k.listMembers(ctx, client.ObjectKeyFromObject(of.Object))
	if err != nil {
		return nil, err
	}
	var restores, beingRestored []string
	for i := range members {
		s := &members[i]
		waiting, err := snapshotcontroller.ClaimsWaitingFor(ctx, k.client, s, earlier(of.Object.GetDeletionTimestamp(), s.DeletionTimestamp))
		if err != nil {
			return nil, err
		}
		restores = append(restores, waiting...)
		if err := kube.GetIfExists(ctx, from, client.ObjectKeyFromObject(s), &s); err != nil {
			return nil, err
		}
		if snapshotcontroller.IsBeingRestored(s) {
			beingRestored = append(beingRestored, s.Name)
		}
	}
	return deletionBlocker(restores, beingRestored), nil
}

// earlier is the earlier of two times. The second may be nil.
func earlier(a, b *metav1.Time) *metav1.Time {
	if b != nil && b.Before(a) {
		return b
	}
	return a
}

// deletionBlocker reports which claims wait for volumes from members, or else which
// members a provisioner restores; nil if there are none.
func deletionBlocker(restores, beingRestored []string) *snapshot.Problem {
	slices.Sort(restores)
	slices.Sort(beingRestored)
	switch {
	case len(restores) > 0:
		return snapshot.Problemf(reasonDeletePending, "claim %s waits for a volume from a member of this group snapshot: the group snapshot is deleted when the claim has its volume, or is gone",
			joinNames(slices.Compact(restores)))
	case len(beingRestored) > 0:
		return snapshot.Problemf(reasonDeletePending, "a provisioner restores %s, of this group snapshot: the group snapshot is deleted when the provisioner removes finalizer %s",
			joinNames(beingRestored), kube.SnapshotSourceFinalizer)
	default:
		return nil
	}
}

// listMembers lists the snapshots that name a group as their owner.
func (k *groupKind) listMembers(ctx context.Context, group client.ObjectKey) ([]snapshotv1.VolumeSnapshot, error) {
	all := &snapshotv1.VolumeSnapshotList{}
	if err := k.client.List(ctx, all, client.InNamespace(group.Namespace), client.MatchingFields{membersByGroup: group.Name}); err != nil {
		return nil, fmt.Errorf("listing the members of group snapshot %s: %w", group.Name, err)
	}
	return all.Items, nil
}

// AfterDeletion implements SnapshotKind. It deletes the members of a group that is gone.
// They are deleted after their group, because they cannot go before it. If this process
// dies in between, the garbage collector of Kubernetes deletes them. Whether the group is
// gone is read from the API server: the cache of groups may lag behind that of members.
func (k *groupKind) AfterDeletion(ctx context.Context, key client.ObjectKey) error {
	members, err := k.listMembers(ctx, key)
	if err != nil || len(members) == 0 {
		return err
	}
	var current *groupv1.VolumeGroupSnapshot
	if err := kube.GetIfExists(ctx, k.apiReader, key, &current); err != nil {
		return err
	}
	for i := range members {
		if current != nil && snapshot.GroupOf(&members[i]).UID == current.UID {
			continue
		}
		if err := k.deleteMember(ctx, &members[i]); err != nil {
			return err
		}
	}
	return nil
}

func (k *groupKind) deleteMember(ctx context.Context, s *snapshotv1.VolumeSnapshot) error {
	if s.DeletionTimestamp != nil {
		return nil // Its own controller removes its finalizers; see deletedMembers.
	}
	err := client.IgnoreNotFound(k.client.Delete(ctx, s, client.Preconditions{UID: &s.UID, ResourceVersion: &s.ResourceVersion}))
	if apierrors.IsConflict(err) {
		return kube.Conflict("VolumeSnapshot %s has changed: %w", s.Name, err)
	}
	if err != nil {
		k.events.Warning(s, reasonDelete, fmt.Sprintf("The group of this snapshot is gone, and the snapshot could not be deleted: %v", err))
		return fmt.Errorf("deleting VolumeSnapshot %s, a member of the group: %w", s.Name, err)
	}
	return nil
}

// deletedMembers returns the members of a group that is gone which were deleted before
// it. They have waited for that.
func (k *groupKind) deletedMembers(ctx context.Context, o client.Object) (requests []reconcile.Request) {
	if !k.options.IsSelected(o.GetNamespace()) {
		return nil
	}
	members, err := k.listMembers(ctx, client.ObjectKeyFromObject(o))
	if err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Could not list the members of a group snapshot that is gone", "group", o.GetName())
	}
	for i := range members {
		if members[i].DeletionTimestamp != nil {
			requests = append(requests, snapshotcontroller.RequestFor(members[i].Namespace, members[i].Name))
		}
	}
	return requests
}
