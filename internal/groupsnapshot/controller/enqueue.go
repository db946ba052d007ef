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

// The functions of this file map objects to the groups that wait for them.

// groupsOfContent maps the content of a member to its group, by the group's handle.
func (k *groupKind) groupsOfContent(ctx context.Context, o client.Object) []reconcile.Request {
	var requests []reconcile.Request
	for _, handle := range memberContentHandle(o) {
		contents := &groupv1.VolumeGroupSnapshotContentList{}
		if err := k.client.List(ctx, contents, client.MatchingFields{contentsByGroup: handle}); err != nil {
			ctrl.LoggerFrom(ctx).Error(err, "Could not find the group of a member", "content", o.GetName())
		}
		for i := range contents.Items {
			ref := contents.Items[i].Spec.VolumeGroupSnapshotRef
			requests = append(requests, snapshotcontroller.RequestFor(ref.Namespace, ref.Name))
		}
	}
	return requests
}

// groupOfSnapshot maps a member to its group. A group that is gone is not enqueued: its
// members are deleted after it.
func (k *groupKind) groupOfSnapshot(ctx context.Context, o client.Object) []reconcile.Request {
	owner := snapshot.GroupOf(o)
	if owner == nil {
		return nil
	}
	var g *groupv1.VolumeGroupSnapshot
	key := snapshotcontroller.RequestFor(o.GetNamespace(), owner.Name)
	if err := kube.GetIfExists(ctx, k.client, key.NamespacedName, &g); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Could not read the group of a member", "snapshot", o.GetName())
	}
	if g == nil {
		return nil
	}
	return []reconcile.Request{key}
}

// waitingForClass maps a class to all groups that have no content yet: it may be the
// class that they name, or the default.
func (k *groupKind) waitingForClass(ctx context.Context, _ client.Object) []reconcile.Request {
	return k.listWaiting(ctx, "")
}

// waitingForClaim maps a claim to the groups of its namespace that have no content yet,
// and to the groups of the members that it restores, because their deletion may wait for
// the claim.
func (k *groupKind) waitingForClaim(ctx context.Context, o client.Object) []reconcile.Request {
	claim, ok := o.(*corev1.PersistentVolumeClaim)
	if !ok {
		return nil
	}
	requests := k.listWaiting(ctx, claim.Namespace)
	if !k.options.IsSelected(claim.Namespace) {
		return requests
	}
	for _, name := range snapshotcontroller.SnapshotSources(claim) {
		var s *snapshotv1.VolumeSnapshot
		if err := kube.GetIfExists(ctx, k.client, client.ObjectKey{Namespace: claim.Namespace, Name: name}, &s); err != nil {
			ctrl.LoggerFrom(ctx).Error(err, "Could not read the snapshot that a claim restores", "snapshot", name)
		}
		if s != nil && snapshot.GroupOf(s) != nil {
			requests = append(requests, snapshotcontroller.RequestFor(claim.Namespace, snapshot.GroupOf(s).Name))
		}
	}
	return requests
}

// waitingForVolume maps a volume to the groups of its claim's namespace that have no
// content yet.
func (k *groupKind) waitingForVolume(ctx context.Context, o client.Object) []reconcile.Request {
	volume, ok := o.(*corev1.PersistentVolume)
	if !ok || volume.Spec.ClaimRef == nil {
		return nil
	}
	return k.listWaiting(ctx, volume.Spec.ClaimRef.Namespace)
}

// listWaiting lists the groups of a namespace, or of all, that have no content yet.
func (k *groupKind) listWaiting(ctx context.Context, namespace string) []reconcile.Request {
	groups := &groupv1.VolumeGroupSnapshotList{}
	if err := k.client.List(ctx, groups, client.InNamespace(namespace), client.MatchingFields{waitingGroups: yes}); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Could not list the group snapshots that have no content yet")
		return nil
	}
	var requests []reconcile.Request
	for i := range groups.Items {
		requests = append(requests, snapshotcontroller.RequestFor(groups.Items[i].Namespace, groups.Items[i].Name))
	}
	return requests
}
