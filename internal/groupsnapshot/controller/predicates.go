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

// memberContentChanges passes what a group must know of the contents of its members: that
// one has become part of the group, is bound to another snapshot, has lost its status, or
// is deleted.
func memberContentChanges() predicate.Funcs {
	type identity struct {
		handle string
		uid    types.UID
	}
	read := func(o client.Object) (id identity, ready bool) {
		content, ok := o.(*snapshotv1.VolumeSnapshotContent)
		if !ok || content.Status == nil {
			return identity{}, false
		}
		return identity{ptr.Deref(content.Status.VolumeGroupSnapshotHandle, ""), content.Spec.VolumeSnapshotRef.UID}, ptr.Deref(content.Status.ReadyToUse, false)
	}
	return predicate.Funcs{
		UpdateFunc: func(e event.UpdateEvent) bool {
			before, was := read(e.ObjectOld)
			now, is := read(e.ObjectNew)
			return before != now || was && !is
		},
	}
}

// memberReadyOrReleased passes what a group waits for: that a member is ready, is not
// restored any more, or is deleted.
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

// claimChanges passes that a claim is bound, has other labels, is deleted, or was deleted
// and created again.
func claimChanges() predicate.Funcs {
	return predicate.Funcs{
		UpdateFunc: func(e event.UpdateEvent) bool {
			return snapshotcontroller.ClaimChanged(e) || !maps.Equal(e.ObjectOld.GetLabels(), e.ObjectNew.GetLabels())
		},
	}
}

// contentCreatedOrTaken passes that the content of a group is created, which states the
// volumes of the group, or that it is taken.
func contentCreatedOrTaken() predicate.Funcs {
	taken := func(o client.Object) bool { return isTaken(asGroupContent(o)) }
	return predicate.Funcs{
		UpdateFunc: func(e event.UpdateEvent) bool { return !taken(e.ObjectOld) && taken(e.ObjectNew) },
		DeleteFunc: func(event.DeleteEvent) bool { return false },
	}
}

// noLongerNeedsClaims passes that a group does not need its claims any more.
func noLongerNeedsClaims() predicate.Funcs {
	needs := func(o client.Object) bool { return mayNeedClaims(asGroup(o)) && o.GetDeletionTimestamp() == nil }
	return predicate.Funcs{
		CreateFunc: func(event.CreateEvent) bool { return false },
		UpdateFunc: func(e event.UpdateEvent) bool { return needs(e.ObjectOld) && !needs(e.ObjectNew) },
	}
}
