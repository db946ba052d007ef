package controller

import (
	"context"

	groupv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
	snapshotcontroller "github.com/holdfast-io/holdfast/internal/snapshot/controller"
)

// This file leads from objects that change to the groups that wait for them.

// groupOfMember leads from the content of a member to its group, by the group's
// handle.
func (k *group) groupOfMember(ctx context.Context, o client.Object) []reconcile.Request {
	var requests []reconcile.Request
	for _, handle := range groupHandle(o) {
		contents := &groupv1.VolumeGroupSnapshotContentList{}
		if err := k.client.List(ctx, contents, client.MatchingFields{contentsByGroup: handle}); err != nil {
			ctrl.LoggerFrom(ctx).Error(err, "The group of a snapshot could not be found", "content", o.GetName())
		}
		for i := range contents.Items {
			ref := contents.Items[i].Spec.VolumeGroupSnapshotRef
			requests = append(requests, snapshotcontroller.Key(ref.Namespace, ref.Name))
		}
	}
	return requests
}

// ownerOf leads from a member to its group, if that is there: members go after it,
// and that is nothing new to it.
func (k *group) ownerOf(ctx context.Context, o client.Object) []reconcile.Request {
	owner := snapshot.GroupOf(o)
	if owner == nil {
		return nil
	}
	var of *groupv1.VolumeGroupSnapshot
	key := snapshotcontroller.Key(o.GetNamespace(), owner.Name)
	if err := kube.GetIfExists(ctx, k.client, key.NamespacedName, &of); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "The group of a snapshot could not be read", "snapshot", o.GetName())
	}
	if of == nil {
		return nil
	}
	return []reconcile.Request{key}
}

// waitingForClass leads from a class to all groups that have no content yet: it
// may be the one that they name, or the default.
func (k *group) waitingForClass(ctx context.Context, _ client.Object) []reconcile.Request {
	return k.waiting(ctx, "")
}

// waitingForClaim leads from a claim to the groups of its namespace that have no
// content yet, and to those of the members that it was to be filled from: they
// may be waiting to go.
func (k *group) waitingForClaim(ctx context.Context, o client.Object) []reconcile.Request {
	claim, ok := o.(*corev1.PersistentVolumeClaim)
	if !ok {
		return nil
	}
	requests := k.waiting(ctx, claim.Namespace)
	if !k.options.Serves(claim.Namespace) {
		return requests
	}
	for _, name := range snapshotcontroller.SourcesOf(claim) {
		var of *snapshotv1.VolumeSnapshot
		if err := kube.GetIfExists(ctx, k.client, client.ObjectKey{Namespace: claim.Namespace, Name: name}, &of); err != nil {
			ctrl.LoggerFrom(ctx).Error(err, "The snapshot that a claim is filled from could not be read", "snapshot", name)
		}
		if of != nil && snapshot.GroupOf(of) != nil {
			requests = append(requests, snapshotcontroller.Key(claim.Namespace, snapshot.GroupOf(of).Name))
		}
	}
	return requests
}

// waitingForVolume leads from a volume to the groups of its claim's namespace.
func (k *group) waitingForVolume(ctx context.Context, o client.Object) []reconcile.Request {
	volume, ok := o.(*corev1.PersistentVolume)
	if !ok || volume.Spec.ClaimRef == nil {
		return nil
	}
	return k.waiting(ctx, volume.Spec.ClaimRef.Namespace)
}

// waiting are the groups of a namespace, or of all, that have no content.
func (k *group) waiting(ctx context.Context, namespace string) []reconcile.Request {
	groups := &groupv1.VolumeGroupSnapshotList{}
	if err := k.client.List(ctx, groups, client.InNamespace(namespace), client.MatchingFields{waitingGroups: yes}); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "The group snapshots that wait for something could not be listed")
		return nil
	}
	var requests []reconcile.Request
	for i := range groups.Items {
		requests = append(requests, snapshotcontroller.Key(groups.Items[i].Namespace, groups.Items[i].Name))
	}
	return requests
}
