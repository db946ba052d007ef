package controller

import (
	"context"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// The functions of this file map objects to the snapshots that wait for them.

// Enqueue enqueues the snapshots that an object is mapped to, if their namespaces are
// selected.
func (r *Reconciler) Enqueue(lead handler.MapFunc) handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(r.options.onlySelected(lead))
}

// snapshotRequest is the request for the snapshot of a content.
func (r *Reconciler) snapshotRequest(c *Content) reconcile.Request {
	return RequestFor(c.Ref.Namespace, c.Ref.Name)
}

// snapshotsOfContent maps a content to its snapshot.
func (r *Reconciler) snapshotsOfContent(_ context.Context, o client.Object) []reconcile.Request {
	return []reconcile.Request{r.snapshotRequest(r.kind.ReadContent(o))}
}

// RequestFor is the request for an object of that name.
func RequestFor(namespace, name string) reconcile.Request {
	return reconcile.Request{NamespacedName: types.NamespacedName{Namespace: namespace, Name: name}}
}

// sourceClaimRequests maps a snapshot to the claim that it is taken of.
func sourceClaimRequests(_ context.Context, o client.Object) []reconcile.Request {
	var requests []reconcile.Request
	for _, claim := range sourceClaim(o) {
		requests = append(requests, RequestFor(o.GetNamespace(), claim))
	}
	return requests
}

// waitingForClass maps a class to the snapshots that have no content yet: those that name
// it, and those that name no class, because it may be the default.
func (k *singleKind) waitingForClass(ctx context.Context, class client.Object) []reconcile.Request {
	return append(
		k.listWaiting(ctx, client.MatchingFields{snapshotsByClass: class.GetName()}),
		k.listWaiting(ctx, client.MatchingFields{snapshotsByClass: ""})...)
}

// waitingForClaim maps a claim to the snapshots of it that have no content yet, and to
// those that it restores, because their deletion may wait for the claim.
func (k *singleKind) waitingForClaim(ctx context.Context, o client.Object) []reconcile.Request {
	claim, ok := o.(*corev1.PersistentVolumeClaim)
	if !ok || !k.options.IsSelected(claim.Namespace) {
		return nil
	}
	requests := k.listWaiting(ctx, client.InNamespace(claim.Namespace), client.MatchingFields{snapshotsByClaim: claim.Name})
	for _, name := range SnapshotSources(claim) {
		requests = append(requests, RequestFor(claim.Namespace, name))
	}
	return requests
}

// waitingForVolume maps a volume to the snapshots of its claim.
func (k *singleKind) waitingForVolume(ctx context.Context, o client.Object) []reconcile.Request {
	volume, ok := o.(*corev1.PersistentVolume)
	if !ok || volume.Spec.ClaimRef == nil || !k.options.IsSelected(volume.Spec.ClaimRef.Namespace) {
		return nil
	}
	ref := volume.Spec.ClaimRef
	return k.listWaiting(ctx, client.InNamespace(ref.Namespace), client.MatchingFields{snapshotsByClaim: ref.Name})
}

// listWaiting lists snapshots that have no content yet.
func (k *singleKind) listWaiting(ctx context.Context, by ...client.ListOption) []reconcile.Request {
	list := &snapshotv1.VolumeSnapshotList{}
	if err := k.client.List(ctx, list, by...); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Could not list the snapshots that have no content yet")
		return nil
	}
	var requests []reconcile.Request
	for i := range list.Items {
		if len(awaitedClass(&list.Items[i])) > 0 {
			requests = append(requests, RequestFor(list.Items[i].Namespace, list.Items[i].Name))
		}
	}
	return requests
}
