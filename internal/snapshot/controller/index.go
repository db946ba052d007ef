package controller

import (
	"context"
	"fmt"
	"slices"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Indexes of the cache.
const (
	snapshotsByClaim = "source-claim"   // VolumeSnapshots that are not taken yet, by their source claim
	snapshotsByClass = "waits-in-class" // VolumeSnapshots without a content, by the class that they name; "" for none
	claimsBySnapshot = "restores"       // pending claims, by the snapshots of their namespace that they restore
)

func index(ctx context.Context, m ctrl.Manager) error {
	indexes := []struct {
		of     client.Object
		name   string
		values client.IndexerFunc
	}{
		{&snapshotv1.VolumeSnapshot{}, snapshotsByClaim, neededClaim},
		{&snapshotv1.VolumeSnapshot{}, snapshotsByClass, awaitedClass},
		{&corev1.PersistentVolumeClaim{}, claimsBySnapshot, awaitedSnapshots},
	}
	for _, i := range indexes {
		if err := m.GetFieldIndexer().IndexField(ctx, i.of, i.name, i.values); err != nil {
			return fmt.Errorf("indexing %T: %w", i.of, err)
		}
	}
	return nil
}

func sourceClaim(o client.Object) []string {
	s, ok := o.(*snapshotv1.VolumeSnapshot)
	if !ok || s.Spec.Source.PersistentVolumeClaimName == nil {
		return nil
	}
	return []string{*s.Spec.Source.PersistentVolumeClaimName}
}

// neededClaim is the claim that a snapshot waits for, or that must stay for it. Snapshots
// that are taken are not in this index.
func neededClaim(o client.Object) []string {
	s, ok := o.(*snapshotv1.VolumeSnapshot)
	if !ok || !needsClaim(s) && len(awaitedClass(s)) == 0 {
		return nil
	}
	return sourceClaim(s)
}

func awaitedClass(o client.Object) []string {
	s, ok := o.(*snapshotv1.VolumeSnapshot)
	if !ok || s.Spec.Source.PersistentVolumeClaimName == nil || s.Status != nil && s.Status.BoundVolumeSnapshotContentName != nil {
		return nil
	}
	return []string{ptr.Deref(s.Spec.VolumeSnapshotClassName, "")}
}

// awaitedSnapshots are the snapshots that a pending claim restores.
func awaitedSnapshots(o client.Object) []string {
	claim, ok := o.(*corev1.PersistentVolumeClaim)
	if !ok || claim.Status.Phase != corev1.ClaimPending {
		return nil
	}
	return SnapshotSources(claim)
}

// SnapshotSources are the snapshots of its own namespace that a claim names as its
// source: in dataSource, or in dataSourceRef, which can also name another namespace
// (KEP-3294).
func SnapshotSources(claim *corev1.PersistentVolumeClaim) []string {
	var names []string
	if from := claim.Spec.DataSource; from != nil && from.Kind == "VolumeSnapshot" && ptr.Deref(from.APIGroup, "") == snapshotv1.GroupName {
		names = append(names, from.Name)
	}
	from := claim.Spec.DataSourceRef
	if from == nil || from.Kind != "VolumeSnapshot" || ptr.Deref(from.APIGroup, "") != snapshotv1.GroupName {
		return names
	}
	if ptr.Deref(from.Namespace, claim.Namespace) != claim.Namespace || slices.Contains(names, from.Name) {
		return names
	}
	return append(names, from.Name)
}
