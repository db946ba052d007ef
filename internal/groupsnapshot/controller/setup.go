package controller

import (
	"context"
	"errors"
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
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/holdfast-io/holdfast/internal/kube"
	snapshotcontroller "github.com/holdfast-io/holdfast/internal/snapshot/controller"
)

// Groups are what the work on single snapshots has to know of groups. Whether one
// is there is asked of the API server itself: that is seldom, and is also right
// before the kinds are watched. Where they are not installed there are no groups.
func Groups(live client.Reader) *snapshotcontroller.Groups {
	return &snapshotcontroller.Groups{
		Gone:  make(chan event.GenericEvent),
		Needs: (&uncachedGroups{apiReader: live, now: time.Now}).needsClaim,
		There: func(ctx context.Context, namespace string, owner *metav1.OwnerReference) (bool, error) {
			var group *groupv1.VolumeGroupSnapshot
			err := kube.GetIfExists(ctx, live, client.ObjectKey{Namespace: namespace, Name: owner.Name}, &group)
			if meta.IsNoMatchError(err) {
				return false, nil
			}
			return group != nil && group.UID == owner.UID, err
		},
	}
}

// Setup adds the controllers to a manager to which those of single snapshots, with
// these groups and options, were added before. The kinds must be installed.
func Setup(ctx context.Context, m ctrl.Manager, events *kube.Events, groups *snapshotcontroller.Groups, o *snapshotcontroller.Options) error {
	kind, err := m.GetClient().GroupVersionKindFor(&groupv1.VolumeGroupSnapshot{})
	if err != nil {
		return fmt.Errorf("finding the version of the API: %w", err)
	}
	if err := index(ctx, m); err != nil {
		return err
	}
	k := &groupKind{client: m.GetClient(), apiReader: m.GetAPIReader(), events: events, options: o, singles: groups, info: kindInfo(kind.GroupVersion())}
	engine := snapshotcontroller.NewReconciler(k.client, k.apiReader, k, events, o)
	groups.WorkedOnBy(k) // Before any of them protects a claim.
	if err := errors.Join(k.setUpClaimProtection(m), k.setUpGroups(m, engine), engine.SetUpOrphans(m), engine.SetUpStranded(m)); err != nil {
		return fmt.Errorf("adding the controllers: %w", err)
	}
	return nil
}

func (k *groupKind) setUpGroups(m ctrl.Manager, engine *snapshotcontroller.Reconciler) error {
	return engine.Complete(engine.NewController(m).
		Watches(&snapshotv1.VolumeSnapshotContent{}, engine.Enqueue(k.groupsOfContent), builder.WithPredicates(memberContentChanges(), kube.SkipInitialList())).
		Watches(&snapshotv1.VolumeSnapshot{}, engine.Enqueue(k.groupOfSnapshot), builder.WithPredicates(memberReadyOrReleased())).
		Watches(&groupv1.VolumeGroupSnapshotClass{}, engine.Enqueue(k.waitingForClass), builder.WithPredicates(snapshotcontroller.IsNotDeleted(), kube.SkipInitialList())).
		Watches(&corev1.PersistentVolumeClaim{}, engine.Enqueue(k.waitingForClaim), builder.WithPredicates(claimChanges(), kube.SkipInitialList())).
		Watches(&corev1.PersistentVolume{}, engine.Enqueue(k.waitingForVolume), builder.WithPredicates(snapshotcontroller.IsCreated(), kube.SkipInitialList())))
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
