package bind

import (
	"context"
	"fmt"
	"maps"
	"time"

	groupv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
	single "github.com/holdfast-io/holdfast/internal/snapshot/bind"
)

// Groups are what the work on single snapshots has to know of groups. Whether one
// is there is asked of the API server itself: that is seldom, and is also right
// before the kinds are watched. Where they are not installed there are no groups.
func Groups(live client.Reader) *single.Groups {
	return &single.Groups{
		Gone: make(chan event.GenericEvent),
		There: func(ctx context.Context, namespace string, owner *metav1.OwnerReference) (bool, error) {
			var group *groupv1.VolumeGroupSnapshot
			err := kube.Read(ctx, live, client.ObjectKey{Namespace: namespace, Name: owner.Name}, &group)
			if meta.IsNoMatchError(err) {
				return false, nil
			}
			return group != nil && group.UID == owner.UID, err
		},
	}
}

// Setup adds the controller to a manager to which that of single snapshots, with
// these groups and options, was added before. The kinds must be installed.
func Setup(ctx context.Context, m ctrl.Manager, events *kube.Events, groups *single.Groups, o *single.Options) error {
	r := &Reconciler{client: m.GetClient(), live: m.GetAPIReader(), events: events, options: o, singles: groups, waits: snapshot.Measured, now: time.Now}
	var err error
	if r.kind, err = m.GetClient().GroupVersionKindFor(&groupv1.VolumeGroupSnapshot{}); err != nil {
		return fmt.Errorf("finding the version of the API: %w", err)
	}
	if err := r.index(ctx, m); err != nil {
		return err
	}
	each := func(lead handler.MapFunc) handler.EventHandler {
		return handler.EnqueueRequestsFromMapFunc(o.Mine(lead))
	}
	err = ctrl.NewControllerManagedBy(m).
		Named("bind-groupsnapshot").
		For(&groupv1.VolumeGroupSnapshot{}, builder.WithPredicates(r.served(), wakes())).
		Watches(&groupv1.VolumeGroupSnapshotContent{}, each(groupOf)).
		Watches(&snapshotv1.VolumeSnapshotContent{}, each(r.groupOfMember), builder.WithPredicates(memberChanges())).
		Watches(&snapshotv1.VolumeSnapshot{}, each(ownerOf), builder.WithPredicates(becomesReady())).
		Watches(&groupv1.VolumeGroupSnapshotClass{}, each(r.waitingForClass), builder.WithPredicates(notDeleted())).
		Watches(&corev1.PersistentVolumeClaim{}, each(r.waitingForClaim), builder.WithPredicates(claimChanges())).
		Watches(&corev1.PersistentVolume{}, each(r.waitingForVolume), builder.WithPredicates(appears())).
		WithOptions(o.Work()).
		Complete(kube.Finish(r))
	if err != nil {
		return fmt.Errorf("adding the controller: %w", err)
	}
	groups.CountWith(r.unfinished)
	return nil
}

// served lets through what is in a namespace whose snapshots are worked on.
func (r *Reconciler) served() predicate.Funcs {
	return predicate.NewPredicateFuncs(func(o client.Object) bool { return r.options.Serves(o.GetNamespace()) })
}

// wakes lets through what users change, and that a group is gone. What is written
// here wakes nobody.
func wakes() predicate.Funcs {
	return predicate.Funcs{
		UpdateFunc: func(e event.UpdateEvent) bool {
			return e.ObjectOld.GetResourceVersion() == e.ObjectNew.GetResourceVersion() || // The resync.
				e.ObjectOld.GetUID() != e.ObjectNew.GetUID() ||
				e.ObjectOld.GetGeneration() != e.ObjectNew.GetGeneration() ||
				e.ObjectOld.GetDeletionTimestamp() == nil && e.ObjectNew.GetDeletionTimestamp() != nil
		},
	}
}

// memberChanges lets through what a group must know of the contents of its
// members: that one has become part of it, or somebody's, has lost what was said
// of it, or is gone.
func memberChanges() predicate.Funcs {
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

// becomesReady lets through that a member is ready.
func becomesReady() predicate.Funcs {
	ready := func(o client.Object) bool {
		s, ok := o.(*snapshotv1.VolumeSnapshot)
		return ok && s.Status != nil && ptr.Deref(s.Status.ReadyToUse, false)
	}
	return predicate.Funcs{
		CreateFunc: func(event.CreateEvent) bool { return false },
		UpdateFunc: func(e event.UpdateEvent) bool { return !ready(e.ObjectOld) && ready(e.ObjectNew) },
		DeleteFunc: func(event.DeleteEvent) bool { return false },
	}
}

// claimChanges lets through that a claim has got its volume or other labels, or
// is gone.
func claimChanges() predicate.Funcs {
	return predicate.Funcs{
		UpdateFunc: func(e event.UpdateEvent) bool {
			before, ok1 := e.ObjectOld.(*corev1.PersistentVolumeClaim)
			now, ok2 := e.ObjectNew.(*corev1.PersistentVolumeClaim)
			return ok1 && ok2 && (before.Status.Phase != now.Status.Phase || !maps.Equal(before.Labels, now.Labels))
		},
	}
}

// appears lets through a new object.
func appears() predicate.Funcs {
	return predicate.Funcs{
		UpdateFunc: func(event.UpdateEvent) bool { return false },
		DeleteFunc: func(event.DeleteEvent) bool { return false },
	}
}

func notDeleted() predicate.Funcs {
	return predicate.Funcs{DeleteFunc: func(event.DeleteEvent) bool { return false }}
}
