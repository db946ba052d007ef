package controller

import (
	"slices"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// snapshotChanges passes what users change, and deletions. It drops what this program
// writes, except for errors: their cause may have ended before the cache showed them.
func (r rules) snapshotChanges() predicate.Funcs {
	return predicate.Funcs{
		UpdateFunc: func(e event.UpdateEvent) bool {
			return e.ObjectOld.GetResourceVersion() == e.ObjectNew.GetResourceVersion() || // Resync.
				e.ObjectOld.GetUID() != e.ObjectNew.GetUID() ||
				e.ObjectOld.GetGeneration() != e.ObjectNew.GetGeneration() ||
				e.ObjectOld.GetDeletionTimestamp() == nil && e.ObjectNew.GetDeletionTimestamp() != nil ||
				e.ObjectOld.GetLabels()[snapshot.ClaimUID] != e.ObjectNew.GetLabels()[snapshot.ClaimUID] ||
				len(e.ObjectOld.GetOwnerReferences()) != len(e.ObjectNew.GetOwnerReferences()) ||
				restoreEnded(e) ||
				becameUnready(r.kind.ReadSnapshot(e.ObjectOld), r.kind.ReadSnapshot(e.ObjectNew))
		},
	}
}

// restoreEnded reports whether a provisioner has removed its finalizer from a snapshot.
func restoreEnded(e event.UpdateEvent) bool {
	return IsBeingRestored(e.ObjectOld) && !IsBeingRestored(e.ObjectNew)
}

// becameUnready reports whether a snapshot has a new error, or is not ready any more.
func becameUnready(before, now *Snapshot) bool {
	text := errorMessage(now.Error)
	return text != "" && text != errorMessage(before.Error) || before.Ready && !now.Ready
}

// contentChanges passes what a snapshot copies from its content or waits for. It drops
// the annotations by which the csi-snapshotter records its requests, and our own
// being-deleted annotation: the reconciliation that has written it continues by itself.
func (r rules) contentChanges() predicate.Funcs {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		return contentChanged(r.kind.ReadContent(e.ObjectOld), r.kind.ReadContent(e.ObjectNew))
	}}
}

func contentChanged(before, now *Content) bool {
	a, b := before.Object, now.Object
	return a.GetResourceVersion() == b.GetResourceVersion() || // Resync.
		a.GetUID() != b.GetUID() || a.GetGeneration() != b.GetGeneration() || // Its spec has changed, or it is being deleted.
		before.PreProvisioned != now.PreProvisioned ||
		!slices.Equal(a.GetFinalizers(), b.GetFinalizers()) || !equality.Semantic.DeepEqual(before.Status, now.Status)
}

// claimChanges passes that a claim is bound, is deleted, or was deleted and created
// again.
func claimChanges() predicate.Funcs {
	return predicate.Funcs{
		CreateFunc: func(e event.CreateEvent) bool { return phase(e.Object) == corev1.ClaimBound },
		UpdateFunc: ClaimChanged,
	}
}

// ClaimChanged reports whether a claim has another phase, or is another claim of the same
// name: a claim that is deleted and created again may come as one update.
func ClaimChanged(e event.UpdateEvent) bool {
	return phase(e.ObjectOld) != phase(e.ObjectNew) || e.ObjectOld.GetUID() != e.ObjectNew.GetUID()
}

func phase(o client.Object) corev1.PersistentVolumeClaimPhase {
	claim, ok := o.(*corev1.PersistentVolumeClaim)
	if !ok {
		return ""
	}
	return claim.Status.Phase
}

// noLongerNeedsClaim passes that a snapshot does not need its claim any more.
func noLongerNeedsClaim() predicate.Funcs {
	needs := func(o client.Object) bool {
		s, ok := o.(*snapshotv1.VolumeSnapshot)
		return ok && needsClaim(s)
	}
	return predicate.Funcs{
		CreateFunc: func(event.CreateEvent) bool { return false },
		UpdateFunc: func(e event.UpdateEvent) bool { return needs(e.ObjectOld) && !needs(e.ObjectNew) },
	}
}

// IsCreated passes new objects only.
func IsCreated() predicate.Funcs {
	return predicate.Funcs{
		UpdateFunc: func(event.UpdateEvent) bool { return false },
		DeleteFunc: func(event.DeleteEvent) bool { return false },
	}
}

// IsNotDeleted passes everything but deletions.
func IsNotDeleted() predicate.Funcs {
	return predicate.Funcs{DeleteFunc: func(event.DeleteEvent) bool { return false }}
}

// isDeleted passes deletions only.
func isDeleted() predicate.Funcs {
	return predicate.Funcs{
		CreateFunc: func(event.CreateEvent) bool { return false },
		UpdateFunc: func(event.UpdateEvent) bool { return false },
	}
}
