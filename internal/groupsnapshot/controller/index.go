package controller

import (
	"context"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"

	groupv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// Indexes of the cache.
const (
	membersByGroup       = "member-of"    // VolumeSnapshots by the name of the group that owns them
	contentsByGroup      = "group-handle" // contents, of single snapshots and of groups, by the group's handle
	volumesByHandle      = "handle-hash"  // PersistentVolumes by hashes of their handles
	waitingGroups        = "waits"        // VolumeGroupSnapshots of claims that have no content yet
	groupsNotTaken       = "not-taken"    // VolumeGroupSnapshots of claims that are not taken yet
	protectedClaimsIndex = "protected"    // claims with our finalizer
)

func index(ctx context.Context, m ctrl.Manager) error {
	indexes := []struct {
		of     client.Object
		name   string
		values client.IndexerFunc
	}{
		{&snapshotv1.VolumeSnapshot{}, membersByGroup, ownerKey},
		{&snapshotv1.VolumeSnapshotContent{}, contentsByGroup, memberContentHandle},
		{&groupv1.VolumeGroupSnapshotContent{}, contentsByGroup, groupContentHandle},
		{&corev1.PersistentVolume{}, volumesByHandle, volumeHandleKey},
		{&groupv1.VolumeGroupSnapshot{}, waitingGroups, waitingKey},
		{&groupv1.VolumeGroupSnapshot{}, groupsNotTaken, notTaken},
		{&corev1.PersistentVolumeClaim{}, protectedClaimsIndex, protectedClaimKey},
	}
	for _, i := range indexes {
		if err := m.GetFieldIndexer().IndexField(ctx, i.of, i.name, i.values); err != nil {
			return fmt.Errorf("indexing %T: %w", i.of, err)
		}
	}
	return nil
}

// handleKey is the key for a handle of a driver.
func handleKey(driver, handle string) string { return driver + "^" + handle }

func ownerKey(o client.Object) []string {
	owner := snapshot.GroupOf(o)
	if owner == nil {
		return nil
	}
	return []string{owner.Name}
}

func memberContentHandle(o client.Object) []string {
	content, ok := o.(*snapshotv1.VolumeSnapshotContent)
	if !ok || content.Status == nil || content.Status.VolumeGroupSnapshotHandle == nil {
		return nil
	}
	return []string{handleKey(content.Spec.Driver, *content.Status.VolumeGroupSnapshotHandle)}
}

func groupContentHandle(o client.Object) []string {
	content, ok := o.(*groupv1.VolumeGroupSnapshotContent)
	if !ok || content.Status == nil || content.Status.VolumeGroupSnapshotHandle == nil {
		return nil
	}
	return []string{handleKey(content.Spec.Driver, *content.Status.VolumeGroupSnapshotHandle)}
}

func volumeHandleKey(o client.Object) []string {
	volume, ok := o.(*corev1.PersistentVolume)
	if !ok || volume.Spec.CSI == nil {
		return nil
	}
	return []string{handleHash(volume.Spec.CSI.VolumeHandle)}
}

// handleHash is one of a thousand keys for all handles. Each key of an index has a set of
// its own: with a key for each volume the index would be half as large as the volumes,
// and it is only read once for each member of a group.
func handleHash(handle string) string {
	sum := fnv.New32a()
	sum.Write([]byte(handle))
	return strconv.FormatUint(uint64(sum.Sum32()%1000), 10)
}

// yes is the only key of an index that is a set.
const yes = "yes"

func waitingKey(o client.Object) []string {
	g, ok := o.(*groupv1.VolumeGroupSnapshot)
	if !ok || g.Spec.Source.Selector == nil || g.Status != nil && g.Status.BoundVolumeGroupSnapshotContentName != nil {
		return nil
	}
	return []string{yes}
}

func notTaken(o client.Object) []string {
	g, ok := o.(*groupv1.VolumeGroupSnapshot)
	if !ok || g.Spec.Source.Selector == nil || g.Status != nil && g.Status.CreationTime != nil {
		return nil
	}
	return []string{yes}
}

func protectedClaimKey(o client.Object) []string {
	if !slices.Contains(o.GetFinalizers(), snapshot.ClaimFinalizer) {
		return nil
	}
	return []string{yes}
}
