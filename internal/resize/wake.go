package resize

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// This file is about what wakes a claim up. Only claims get into the queue for
// which there is something to do; claims of other drivers never do. What this
// controller writes itself wakes nobody: a call that was refused would be made
// again at once.

// claimsByClass indexes claims by the VolumeAttributesClasses that they wait
// for.
const claimsByClass = "resize.class"

// relevantFields are the fields of a claim that other programs write and that
// this controller acts on. Its own writes enqueue nothing: otherwise a rejected
// call would be repeated at once.
type relevantFields struct {
	uid                        types.UID
	volume                     string
	phase                      corev1.PersistentVolumeClaimPhase
	requested, capacity        int64
	desiredClass, currentClass string
	resizer                    string
	nodeStatus                 corev1.ClaimResourceStatus // of an expansion, while the node acts
}

func relevantFieldsOf(claim *corev1.PersistentVolumeClaim) relevantFields {
	n := relevantFields{
		resizer: claim.Annotations[kube.AnnStorageResizer],
		uid:     claim.UID, volume: claim.Spec.VolumeName, phase: claim.Status.Phase,
		requested: sizeOf(claim.Spec.Resources.Requests), capacity: sizeOf(claim.Status.Capacity),
		desiredClass: ptr.Deref(claim.Spec.VolumeAttributesClassName, ""), currentClass: ptr.Deref(claim.Status.CurrentVolumeAttributesClassName, ""),
	}
	switch status := claim.Status.AllocatedResourceStatuses[corev1.ResourceStorage]; status {
	case corev1.PersistentVolumeClaimNodeResizeInProgress, corev1.PersistentVolumeClaimNodeResizeInfeasible:
		n.nodeStatus = status
	default:
	}
	return n
}

// claimChanged passes new claims, claims with a relevant change, and periodic
// resyncs.
func claimChanged() predicate.Funcs {
	return predicate.Funcs{
		UpdateFunc: func(e event.UpdateEvent) bool {
			old, before := e.ObjectOld.(*corev1.PersistentVolumeClaim)
			now, after := e.ObjectNew.(*corev1.PersistentVolumeClaim)
			return before && after && (relevantFieldsOf(old) != relevantFieldsOf(now) || old.ResourceVersion == now.ResourceVersion)
		},
		DeleteFunc: func(event.DeleteEvent) bool { return false },
	}
}

// volumeChanged passes our volumes if they are new, or have another claim or
// other secrets.
func (r *Reconciler) volumeChanged() predicate.Funcs {
	type relevant struct {
		claim          types.UID
		expand, modify corev1.SecretReference
	}
	relevantOf := func(o client.Object) (n relevant, ours bool) {
		volume, ok := o.(*corev1.PersistentVolume)
		if !ok || !r.options.isOurs(volume) {
			return n, false
		}
		if volume.Spec.ClaimRef != nil {
			n.claim = volume.Spec.ClaimRef.UID
		}
		if volume.Spec.CSI != nil {
			n.expand = ptr.Deref(volume.Spec.CSI.ControllerExpandSecretRef, corev1.SecretReference{})
		}
		n.modify = corev1.SecretReference{Name: volume.Annotations[kube.AnnModifySecretName], Namespace: volume.Annotations[kube.AnnModifySecretNamespace]}
		return n, true
	}
	return predicate.Funcs{
		CreateFunc: func(e event.CreateEvent) bool {
			_, ours := relevantOf(e.Object)
			return ours
		},
		UpdateFunc: func(e event.UpdateEvent) bool {
			old, _ := relevantOf(e.ObjectOld)
			now, ours := relevantOf(e.ObjectNew)
			return ours && old != now
		},
		DeleteFunc: func(event.DeleteEvent) bool { return false },
	}
}

// createdOnly passes new objects: the parameters of a class never change.
func createdOnly() predicate.Funcs {
	return predicate.Funcs{
		UpdateFunc: func(event.UpdateEvent) bool { return false },
		DeleteFunc: func(event.DeleteEvent) bool { return false },
	}
}

// requestsForClaim enqueues a claim if there is something to do for it.
func (r *Reconciler) requestsForClaim(ctx context.Context, o client.Object) []reconcile.Request {
	return r.requestIfDue(ctx, client.ObjectKeyFromObject(o))
}

// requestsForVolume enqueues a volume's claim if there is something to do for
// it. So it does not matter whether the claim or the volume reaches the cache
// first.
func (r *Reconciler) requestsForVolume(ctx context.Context, o client.Object) []reconcile.Request {
	volume, ok := o.(*corev1.PersistentVolume)
	if !ok || volume.Spec.ClaimRef == nil {
		return nil
	}
	return r.requestIfDue(ctx, types.NamespacedName{Namespace: volume.Spec.ClaimRef.Namespace, Name: volume.Spec.ClaimRef.Name})
}

// requestsForClass enqueues the claims that wait for a class.
func (r *Reconciler) requestsForClass(ctx context.Context, o client.Object) []reconcile.Request {
	claims := &corev1.PersistentVolumeClaimList{}
	if err := r.client.List(ctx, claims, client.MatchingFields{claimsByClass: o.GetName()}); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Listing the claims of a class failed", "class", o.GetName())
		return nil
	}
	var all []reconcile.Request
	for i := range claims.Items {
		all = append(all, r.requestsForClaim(ctx, &claims.Items[i])...)
	}
	return all
}

// requestIfDue enqueues a claim if there is something to do for it according to
// the cache. Claims of other drivers are never enqueued.
func (r *Reconciler) requestIfDue(ctx context.Context, key types.NamespacedName) []reconcile.Request {
	s, err := r.observe(ctx, r.client, key)
	if err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Reading a claim failed", "claim", key)
		return nil
	}
	if s.volume == nil || decideExpansion(s, r.options, r.now()).action == none && decideModification(s, r.options, r.now()).action == none {
		return nil
	}
	return []reconcile.Request{{NamespacedName: key}}
}

// pendingClasses returns the VolumeAttributesClasses that a claim waits for.
func pendingClasses(o client.Object) []string {
	claim, ok := o.(*corev1.PersistentVolumeClaim)
	if !ok {
		return nil
	}
	var classes []string
	if desired := ptr.Deref(claim.Spec.VolumeAttributesClassName, ""); desired != "" && desired != ptr.Deref(claim.Status.CurrentVolumeAttributesClassName, "") {
		classes = append(classes, desired)
	}
	if record := claim.Status.ModifyVolumeStatus; record != nil && (len(classes) == 0 || classes[0] != record.TargetVolumeAttributesClassName) {
		classes = append(classes, record.TargetVolumeAttributesClassName)
	}
	return classes
}
