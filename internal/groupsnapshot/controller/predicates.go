package controller

import (
	"maps"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	snapshotcontroller "github.com/holdfast-io/holdfast/internal/snapshot/controller"
)

// groupDeleted passes the event by which a group is gone. After a gap in the watch, a
// group that was deleted and created again comes as one update.
func groupDeleted() predicate.Funcs {
	return predicate.Funcs{
		CreateFunc: func(event.CreateEvent) bool { return false },
		UpdateFunc: func(e event.UpdateEvent) bool { return e.ObjectOld.GetUID() != e.ObjectNew.GetUID() },
	}
}

// memberContentChanges lets through what a group must know of the contents of its
// members: that one has become part of it, or somebody's, has lost what was said
// of it, or is gone.
func memberContentChanges() predicate.Funcs {
	type known struct {
		handle string
		of     types.UID
	}
	told := func(o client.Object) (k known, ready bool) {
		content, ok := o.(*snapshotv1.VolumeSnapshotContent)
		if !ok || content.Status == nil {
			return known{}, false
		}
		return known{ptr.Deref(content.Status.VolumeGroupSnapshotHandle, ""), content.Spec.VolumeSnapshotRef.UID}, ptr.Deref(content.Status.ReadyToUse, false)
	}
	return predicate.Funcs{
		UpdateFunc: func(e event.UpdateEvent) bool {
			before, was := told(e.ObjectOld)
			now, is := told(e.ObjectNew)
			return before != now || was && !is
		},
	}
}

// memberReadyOrReleased lets through what a group waits for of its members: that one is ready,
// that a provisioner needs it no longer, or that it is gone.
func memberReadyOrReleased() predicate.Funcs {
	ready := func(o client.Object) bool {
		s, ok := o.(*snapshotv1.VolumeSnapshot)
		return ok && s.Status != nil && ptr.Deref(s.Status.ReadyToUse, false)
	}
	return predicate.Funcs{
		CreateFunc: func(event.CreateEvent) bool { return false },
		UpdateFunc: func(e event.UpdateEvent) bool {
			return !ready(e.ObjectOld) && ready(e.ObjectNew) || snapshotcontroller.IsBeingRestored(e.ObjectOld) && !snapshotcontroller.IsBeingRestored(e.ObjectNew)
		},
	}
}

// claimChanges lets through that a claim has got its volume or other labels, is gone,
// or is another one of its name.
func claimChanges() predicate.Funcs {
	return predicate.Funcs{
		UpdateFunc: func(e event.UpdateEvent) bool {
			return snapshotcontroller.ClaimChanged(e) || !maps.Equal(e.ObjectOld.GetLabels(), e.ObjectNew.GetLabels())
		},
	}
}

// contentCreatedOrTaken lets through that a group's content is there, which says what it is of,
// or that it is cut.
func contentCreatedOrTaken() predicate.Funcs {
	cut := func(o client.Object) bool { return isTaken(asGroupContent(o)) }
	return predicate.Funcs{
		UpdateFunc: func(e event.UpdateEvent) bool { return !cut(e.ObjectOld) && cut(e.ObjectNew) },
		DeleteFunc: func(event.DeleteEvent) bool { return false },
	}
}

// noLongerNeedsClaims lets through that a group needs its claims no more.
func noLongerNeedsClaims() predicate.Funcs {
	needs := func(o client.Object) bool { return mayNeedClaims(asGroup(o)) && o.GetDeletionTimestamp() == nil }
	return predicate.Funcs{
		CreateFunc: func(event.CreateEvent) bool { return false },
		UpdateFunc: func(e event.UpdateEvent) bool { return needs(e.ObjectOld) && !needs(e.ObjectNew) },
	}
}
