package resize

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// mayResize reports whether this controller may resize a claim's volume. For an
// in-tree volume, the expand controller of Kubernetes must have handed over the
// claim: before, it may be working on it itself (KEP-625).
func (o *Options) mayResize(claim *corev1.PersistentVolumeClaim, volume *corev1.PersistentVolume) bool {
	if !o.Plugin.IsVolumeOf(o.Driver, volume) {
		return false
	}
	return volume.Spec.CSI != nil || claim.Annotations[kube.AnnStorageResizer] == o.Driver
}

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
	f := relevantFields{
		resizer: claim.Annotations[kube.AnnStorageResizer],
		uid:     claim.UID, volume: claim.Spec.VolumeName, phase: claim.Status.Phase,
		requested: sizeOf(claim.Spec.Resources.Requests), capacity: sizeOf(claim.Status.Capacity),
		desiredClass: ptr.Deref(claim.Spec.VolumeAttributesClassName, ""), currentClass: ptr.Deref(claim.Status.CurrentVolumeAttributesClassName, ""),
	}
	switch status := claim.Status.AllocatedResourceStatuses[corev1.ResourceStorage]; status {
	case corev1.PersistentVolumeClaimNodeResizeInProgress, corev1.PersistentVolumeClaimNodeResizeInfeasible:
		f.nodeStatus = status
	default:
	}
	return f
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
	relevantOf := func(o client.Object) (f relevant, ours bool) {
		volume, ok := o.(*corev1.PersistentVolume)
		if !ok || !r.options.Plugin.IsVolumeOf(r.options.Driver, volume) {
			return f, false
		}
		if volume.Spec.ClaimRef != nil {
			f.claim = volume.Spec.ClaimRef.UID
		}
		if volume.Spec.CSI != nil {
			f.expand = ptr.Deref(volume.Spec.CSI.ControllerExpandSecretRef, corev1.SecretReference{})
		}
		f.modify = corev1.SecretReference{Name: volume.Annotations[kube.AnnModifySecretName], Namespace: volume.Annotations[kube.AnnModifySecretNamespace]}
		return f, true
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
