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

// snapshotChanges lets through what users change, and that a snapshot is gone. What is
// written here wakes nobody, but for bad news: their cause may have gone while the
// cache did not show them yet.
func (r rules) snapshotChanges() predicate.Funcs {
	return predicate.Funcs{
		UpdateFunc: func(e event.UpdateEvent) bool {
			return e.ObjectOld.GetResourceVersion() == e.ObjectNew.GetResourceVersion() || // The resync.
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

// restoreEnded tells whether a provisioner needs a snapshot no longer.
func restoreEnded(e event.UpdateEvent) bool {
	return IsBeingRestored(e.ObjectOld) && !IsBeingRestored(e.ObjectNew)
}

// becameUnready tells whether a snapshot has another error, or is not ready any more.
func becameUnready(before, now *Snapshot) bool {
	text := errorMessage(now.Error)
	return text != "" && text != errorMessage(before.Error) || before.Ready && !now.Ready
}

// contentChanges lets through what a snapshot takes over or waits for. The record
// that the driver's half keeps in annotations, before and after it asks the
// driver, is not of it, nor is our own word that the content may go: whoever has
// given it goes on by himself.
func (r rules) contentChanges() predicate.Funcs {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		return contentChanged(r.kind.ReadContent(e.ObjectOld), r.kind.ReadContent(e.ObjectNew))
	}}
}

func contentChanged(before, now *Content) bool {
	a, b := before.Object, now.Object
	return a.GetResourceVersion() == b.GetResourceVersion() || // The resync.
		a.GetUID() != b.GetUID() || a.GetGeneration() != b.GetGeneration() || // Of the spec, or that it is being deleted.
		before.PreProvisioned != now.PreProvisioned ||
		!slices.Equal(a.GetFinalizers(), b.GetFinalizers()) || !equality.Semantic.DeepEqual(before.Status, now.Status)
}

// claimChanges lets through that a claim has got its volume, is gone, or is another
// one of its name.
func claimChanges() predicate.Funcs {
	return predicate.Funcs{
		CreateFunc: func(e event.CreateEvent) bool { return phase(e.Object) == corev1.ClaimBound },
		UpdateFunc: ClaimChanged,
	}
}

// ClaimChanged tells whether who waits for a claim must look at it again: its phase is
// another one, or it was deleted and made again, which may come as one change.
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

// noLongerNeedsClaim passes the event by which a snapshot stops to need its claim.
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

// IsCreated lets through a new object.
func IsCreated() predicate.Funcs {
	return predicate.Funcs{
		UpdateFunc: func(event.UpdateEvent) bool { return false },
		DeleteFunc: func(event.DeleteEvent) bool { return false },
	}
}

// IsNotDeleted lets through all but that an object is gone.
func IsNotDeleted() predicate.Funcs {
	return predicate.Funcs{DeleteFunc: func(event.DeleteEvent) bool { return false }}
}

// isDeleted lets through that an object is gone.
func isDeleted() predicate.Funcs {
	return predicate.Funcs{
		CreateFunc: func(event.CreateEvent) bool { return false },
		UpdateFunc: func(event.UpdateEvent) bool { return false },
	}
}
