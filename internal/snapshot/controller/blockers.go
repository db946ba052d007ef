package controller

import (
	"context"
	"fmt"
	"slices"
	"strings"

	groupv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// DeletionBlocker implements SnapshotKind. The cache is good enough: the API server
// accepts no new finalizers on an object that is being deleted.
func (k *singleKind) DeletionBlocker(ctx context.Context, _ client.Reader, of *Snapshot) (*snapshot.Problem, error) {
	s := asSnapshot(of.Object)
	restores, err := ClaimsWaitingFor(ctx, k.client, s, s.DeletionTimestamp)
	if err != nil {
		return nil, err
	}
	group, err := k.existingGroup(ctx, s)
	if err != nil {
		return nil, err
	}
	return deletionBlocker(s, restores, group), nil
}

// existingGroup returns the name of the group snapshot that a snapshot is a member of;
// empty if it is not a member, or the group is gone. It is read from the API server: the
// cache has no groups before their CRDs are installed.
func (k *singleKind) existingGroup(ctx context.Context, s *snapshotv1.VolumeSnapshot) (string, error) {
	owner := snapshot.GroupOf(s)
	if owner == nil || !k.options.Groups {
		return "", nil
	}
	var group *groupv1.VolumeGroupSnapshot
	err := kube.GetIfExists(ctx, k.apiReader, client.ObjectKey{Namespace: s.Namespace, Name: owner.Name}, &group)
	switch {
	case meta.IsNoMatchError(err):
		return "", nil
	case err != nil || group == nil || group.UID != owner.UID:
		return "", err
	default:
		return owner.Name, nil
	}
}

// deletionBlocker reports what still needs a snapshot that is being deleted; nil if
// nothing does. Pending claims that restore it need it, because not every provisioner is
// allowed to add its finalizer. A provisioner that has added it may restore for a claim
// that the cache does not show yet, or for one of another namespace.
func deletionBlocker(s *snapshotv1.VolumeSnapshot, restores []string, group string) *snapshot.Problem {
	reason := singleInfo.Reasons.DeletionPending
	switch {
	case len(restores) > 0:
		return snapshot.Problemf(reason, "claim %s waits for a volume from this snapshot: the snapshot is deleted when the claim has its volume, or is gone", strings.Join(restores, ", "))
	case IsBeingRestored(s):
		return snapshot.Problemf(reason, "a provisioner restores this snapshot: it is deleted when the provisioner removes finalizer %s", kube.SnapshotSourceFinalizer)
	case group != "":
		return snapshot.Problemf(reason, "the snapshot is part of VolumeGroupSnapshot %s: it is deleted with the group", group)
	default:
		return nil
	}
}

// IsBeingRestored reports whether a provisioner restores a snapshot, for a claim of any
// namespace. It adds its finalizer after it has found a ReferenceGrant.
func IsBeingRestored(o client.Object) bool {
	return slices.Contains(o.GetFinalizers(), kube.SnapshotSourceFinalizer)
}

// ClaimsWaitingFor are the claims for which a snapshot that was deleted at a time must
// stay. The reader is the cache of a manager that Setup was called for.
func ClaimsWaitingFor(ctx context.Context, from client.Reader, of *snapshotv1.VolumeSnapshot, deleted *metav1.Time) ([]string, error) {
	claims := &corev1.PersistentVolumeClaimList{}
	if err := from.List(ctx, claims, client.InNamespace(of.Namespace), client.MatchingFields{claimsBySnapshot: of.Name}); err != nil {
		return nil, fmt.Errorf("listing the claims that wait for a volume from snapshot %s/%s: %w", of.Namespace, of.Name, err)
	}
	var names []string
	for i := range claims.Items {
		if isWaitingFor(&claims.Items[i], of, deleted) {
			names = append(names, claims.Items[i].Namespace+"/"+claims.Items[i].Name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// isWaitingFor reports whether a snapshot that was deleted at a time must stay for a
// claim. The provisioner has the same rule: it does not restore a snapshot that was
// deleted before the claim was created. A claim of another namespace only counts by the
// finalizer of its provisioner, because anybody can create such a claim without a grant.
func isWaitingFor(claim *corev1.PersistentVolumeClaim, of *snapshotv1.VolumeSnapshot, deleted *metav1.Time) bool {
	return claim.Namespace == of.Namespace && slices.Contains(awaitedSnapshots(claim), of.Name) &&
		(deleted == nil || !claim.CreationTimestamp.After(deleted.Time))
}
