package controller

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	groupv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/kube"
	snapshotcontroller "github.com/holdfast-io/holdfast/internal/snapshot/controller"
)

// Groups are the controllers of group snapshots. New makes them when the program starts.
// Setup adds them to the manager when the CRDs of group snapshots are served, which may
// be later, or never. Until then Groups answers from the API server which claims group
// snapshots need: controllers of an earlier process may have begun some.
type Groups struct {
	options  *snapshotcontroller.Options
	uncached uncachedGroups
	// kind is set by Setup.
	kind atomic.Pointer[groupKind]
}

var _ snapshotcontroller.Groups = (*Groups)(nil)

// New makes the controllers of group snapshots.
func New(apiReader client.Reader, o *snapshotcontroller.Options) *Groups {
	return &Groups{options: o, uncached: uncachedGroups{apiReader: apiReader, now: time.Now}}
}

// NeedsClaim implements claimprotection.ClaimUser. Before Setup no events of groups wake
// a claim, so it must be rechecked.
func (g *Groups) NeedsClaim(ctx context.Context, claim *corev1.PersistentVolumeClaim) (by string, recheckAfter time.Duration, err error) {
	if !g.options.Groups {
		return "", 0, nil
	}
	if k := g.kind.Load(); k != nil {
		by, err = k.neededBy(ctx, claim)
		return by, 0, err
	}
	by, err = g.uncached.neededBy(ctx, claim)
	return by, recheckUncached, err
}

// UnfinishedOperations implements snapshotcontroller.Groups.
func (g *Groups) UnfinishedOperations(ctx context.Context) int {
	if k := g.kind.Load(); k != nil {
		return k.unfinishedOperations(ctx)
	}
	return 0
}

// Setup adds the controllers to a manager which has those of single snapshots already.
// The CRDs must be served.
func (g *Groups) Setup(ctx context.Context, m ctrl.Manager, events *kube.Events, singles *snapshotcontroller.Controllers) error {
	kind, err := m.GetClient().GroupVersionKindFor(&groupv1.VolumeGroupSnapshot{})
	if err != nil {
		return fmt.Errorf("finding the version of the API: %w", err)
	}
	if err := index(ctx, m); err != nil {
		return err
	}
	k := &groupKind{
		client: m.GetClient(), apiReader: m.GetAPIReader(), events: events, options: g.options,
		claims: singles.Claims, info: kindInfo(kind.GroupVersion()),
	}
	r := snapshotcontroller.NewReconciler(k.client, k.apiReader, k, events, g.options)
	g.kind.Store(k) // Before any of the controllers protects a claim.
	err = errors.Join(
		k.wakeClaims(m),
		singles.WakeSnapshotsBy(m.GetCache(), &groupv1.VolumeGroupSnapshot{}, k.deletedMembers, groupDeleted()),
		k.setUpGroups(m, r), r.SetUpOrphans(m), r.SetUpStranded(m))
	if err != nil {
		return fmt.Errorf("adding the controllers: %w", err)
	}
	return nil
}

func (k *groupKind) setUpGroups(m ctrl.Manager, r *snapshotcontroller.Reconciler) error {
	_, err := r.Build(r.NewController(m).
		Watches(&snapshotv1.VolumeSnapshotContent{}, r.Enqueue(k.groupsOfContent), builder.WithPredicates(memberContentChanges(), kube.SkipInitialList())).
		Watches(&snapshotv1.VolumeSnapshot{}, r.Enqueue(k.groupOfSnapshot), builder.WithPredicates(memberReadyOrReleased())).
		Watches(&groupv1.VolumeGroupSnapshotClass{}, r.Enqueue(k.waitingForClass), builder.WithPredicates(snapshotcontroller.IsNotDeleted(), kube.SkipInitialList())).
		Watches(&corev1.PersistentVolumeClaim{}, r.Enqueue(k.waitingForClaim), builder.WithPredicates(claimChanges(), kube.SkipInitialList())).
		Watches(&corev1.PersistentVolume{}, r.Enqueue(k.waitingForVolume), builder.WithPredicates(snapshotcontroller.IsCreated(), kube.SkipInitialList())))
	return err
}
