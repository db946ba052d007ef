package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"

	groupv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
	snapshotcontroller "github.com/holdfast-io/holdfast/internal/snapshot/controller"
)

// wakeClaims makes the claims wake that a group stops to need.
func (k *groupKind) wakeClaims(m ctrl.Manager) error {
	return errors.Join(
		k.claims.WakeBy(m.GetCache(), &groupv1.VolumeGroupSnapshotContent{}, k.protectedClaimsOfContent, contentCreatedOrTaken()),
		k.claims.WakeBy(m.GetCache(), &groupv1.VolumeGroupSnapshot{}, k.protectedClaimsOfGroup, noLongerNeedsClaims()))
}

// AddClaimFinalizers implements SnapshotKind.
func (k *groupKind) AddClaimFinalizers(ctx context.Context, sources []snapshot.Source) (unlock func(), err error) {
	return k.claims.AddFinalizers(ctx, sources)
}

func (k *groupKind) protectedClaimsOfContent(ctx context.Context, o client.Object) []reconcile.Request {
	return k.protectedClaims(ctx, asGroupContent(o).Spec.VolumeGroupSnapshotRef.Namespace)
}

func (k *groupKind) protectedClaimsOfGroup(ctx context.Context, o client.Object) []reconcile.Request {
	return k.protectedClaims(ctx, o.GetNamespace())
}

// protectedClaims are the requests for all claims of a namespace that have our finalizer:
// a claim may have got it for a group that was then created of other claims.
func (k *groupKind) protectedClaims(ctx context.Context, namespace string) []reconcile.Request {
	if !k.options.IsSelected(namespace) {
		return nil
	}
	claims := &corev1.PersistentVolumeClaimList{}
	if err := k.client.List(ctx, claims, client.InNamespace(namespace), client.MatchingFields{protectedClaimsIndex: yes}); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Could not list the claims that are protected for snapshots", "namespace", namespace)
		return nil
	}
	var requests []reconcile.Request
	for i := range claims.Items {
		requests = append(requests, snapshotcontroller.RequestFor(namespace, claims.Items[i].Name))
	}
	return requests
}

// neededBy returns a group that needs a claim, and "" if there is none. The cache may not show that a group
// has just got its finalizer, and such a group relies on the protection of its claims. So
// a group that does not seem to need claims is read from the API server.
func (k *groupKind) neededBy(ctx context.Context, claim *corev1.PersistentVolumeClaim) (string, error) {
	groups := &groupv1.VolumeGroupSnapshotList{}
	if err := k.client.List(ctx, groups, client.InNamespace(claim.Namespace), client.MatchingFields{groupsNotTaken: yes}); err != nil {
		return "", fmt.Errorf("listing the group snapshots of claim %s: %w", claim.Name, err)
	}
	for i := range groups.Items {
		g := &groups.Items[i]
		if !mayNeedClaims(g) {
			if err := kube.GetIfExists(ctx, k.apiReader, client.ObjectKeyFromObject(g), &g); err != nil {
				return "", err
			}
		}
		needs, err := groupNeedsClaim(ctx, k.client, k.apiReader, g, claim)
		if err != nil {
			return "", err
		}
		if needs {
			return describe(g), nil
		}
	}
	return "", nil
}

// describe names a group in messages about a claim of its namespace.
func describe(g *groupv1.VolumeGroupSnapshot) string { return "VolumeGroupSnapshot " + g.Name }

// groupNeedsClaim reports whether a group needs a claim, with a cached and an uncached
// reader. If the content exists, only that states the volumes of the group: the group may
// have selected a claim when the content was created, and not select it any more.
func groupNeedsClaim(ctx context.Context, c, apiReader client.Reader, g *groupv1.VolumeGroupSnapshot, claim *corev1.PersistentVolumeClaim) (bool, error) {
	if !mayNeedClaims(g) {
		return false, nil
	}
	var content *groupv1.VolumeGroupSnapshotContent
	key := client.ObjectKey{Name: contentName(g)}
	if err := kube.GetIfExists(ctx, c, key, &content); err != nil {
		return false, err
	}
	if content == nil && g.DeletionTimestamp == nil && selects(g, claim) {
		return true, nil
	}
	if content == nil {
		if err := kube.GetIfExists(ctx, apiReader, key, &content); err != nil {
			return false, err
		}
	}
	if content == nil || isTaken(content) {
		return false, nil
	}
	return contentIncludes(ctx, c, content, claim)
}

// contentIncludes reports whether a claim's volume is one of a content's.
func contentIncludes(ctx context.Context, from client.Reader, content *groupv1.VolumeGroupSnapshotContent, claim *corev1.PersistentVolumeClaim) (bool, error) {
	var volume *corev1.PersistentVolume
	err := kube.GetIfExists(ctx, from, client.ObjectKey{Name: claim.Spec.VolumeName}, &volume)
	if err != nil || volume == nil || volume.Spec.CSI == nil {
		return false, err
	}
	return slices.Contains(content.Spec.Source.VolumeHandles, volume.Spec.CSI.VolumeHandle), nil
}

// mayNeedClaims reports whether a group may have protected claims and is not taken yet.
func mayNeedClaims(g *groupv1.VolumeGroupSnapshot) bool {
	return slices.Contains(g.Finalizers, snapshot.GroupBoundFinalizer) && len(notTaken(g)) > 0
}

// selects reports whether the selector of a group matches a claim.
func selects(g *groupv1.VolumeGroupSnapshot, claim *corev1.PersistentVolumeClaim) bool {
	selector, err := metav1.LabelSelectorAsSelector(g.Spec.Source.Selector)
	return err == nil && selector.Matches(labels.Set(claim.Labels))
}

// isTaken reports whether the group snapshot of a content exists at the driver.
func isTaken(content *groupv1.VolumeGroupSnapshotContent) bool {
	return content.Status != nil && content.Status.VolumeGroupSnapshotHandle != nil
}
