package bind

import (
	"context"
	"fmt"
	"slices"

	groupv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// This file lets the claims of groups go. Upstream does not keep them: there a claim
// that is deleted too early takes its volume away from under the cut.

// free lets the claims of a group go that is cut.
func (k *group) free(ctx context.Context, content *groupv1.VolumeGroupSnapshotContent) error {
	for _, handle := range content.Spec.Source.VolumeHandles {
		volume, err := k.volumeOf(ctx, content.Spec.Driver, handle)
		if err != nil {
			return err
		}
		if volume == nil || volume.Spec.ClaimRef == nil {
			continue
		}
		var claim *corev1.PersistentVolumeClaim
		ref := volume.Spec.ClaimRef
		if err := kube.Read(ctx, k.client, client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}, &claim); err != nil {
			return err
		}
		if claim == nil || claim.UID != ref.UID {
			continue
		}
		if err := k.singles.Claims.Free(ctx, claim); err != nil {
			return err
		}
	}
	return nil
}

// freeAll lets the claims of a namespace go that a group may have kept which is gone.
func (k *group) freeAll(ctx context.Context, namespace string) error {
	claims := &corev1.PersistentVolumeClaimList{}
	if err := k.client.List(ctx, claims, client.InNamespace(namespace), client.MatchingFields{claimsKept: yes}); err != nil {
		return fmt.Errorf("listing the claims that are kept for snapshots: %w", err)
	}
	for i := range claims.Items {
		if err := k.singles.Claims.Free(ctx, &claims.Items[i]); err != nil {
			return err
		}
	}
	return nil
}

// Needs implements bind.GroupWorker. The cache may not show that a group has just been
// protected, which relies on its claims being so: that is asked of the API server.
func (k *group) Needs(ctx context.Context, claim *corev1.PersistentVolumeClaim) (bool, error) {
	groups := &groupv1.VolumeGroupSnapshotList{}
	if err := k.client.List(ctx, groups, client.InNamespace(claim.Namespace), client.MatchingFields{uncutGroups: yes}); err != nil {
		return false, fmt.Errorf("listing the group snapshots of claim %s: %w", claim.Name, err)
	}
	for i := range groups.Items {
		one := &groups.Items[i]
		if !slices.Contains(one.Finalizers, snapshot.GroupBoundFinalizer) {
			if err := kube.Read(ctx, k.live, client.ObjectKeyFromObject(one), &one); err != nil {
				return false, err
			}
		}
		needs, err := k.groupNeeds(ctx, one, claim)
		if err != nil || needs {
			return needs, err
		}
	}
	return false, nil
}

func (k *group) groupNeeds(ctx context.Context, of *groupv1.VolumeGroupSnapshot, claim *corev1.PersistentVolumeClaim) (bool, error) {
	if !slices.Contains(of.Finalizers, snapshot.GroupBoundFinalizer) {
		return false, nil
	}
	var content *groupv1.VolumeGroupSnapshotContent
	if err := kube.Read(ctx, k.client, client.ObjectKey{Name: contentName(of)}, &content); err != nil {
		return false, err
	}
	if content == nil {
		return of.DeletionTimestamp == nil && selects(of, claim), nil
	}
	if isCut(content) || claim.Spec.VolumeName == "" {
		return false, nil
	}
	var volume *corev1.PersistentVolume
	if err := kube.Read(ctx, k.client, client.ObjectKey{Name: claim.Spec.VolumeName}, &volume); err != nil || volume == nil {
		return false, err
	}
	return volume.Spec.CSI != nil && slices.Contains(content.Spec.Source.VolumeHandles, volume.Spec.CSI.VolumeHandle), nil
}

// selects tells whether a claim is one of those that a group shall be of.
func selects(of *groupv1.VolumeGroupSnapshot, claim *corev1.PersistentVolumeClaim) bool {
	selector, err := metav1.LabelSelectorAsSelector(of.Spec.Source.Selector)
	return err == nil && selector.Matches(labels.Set(claim.Labels))
}

// isCut tells whether the volumes of a content are in a group snapshot at the driver.
func isCut(content *groupv1.VolumeGroupSnapshotContent) bool {
	return content.Status != nil && content.Status.VolumeGroupSnapshotHandle != nil
}
