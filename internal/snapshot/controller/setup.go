package controller

import (
	"context"
	"errors"
	"fmt"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// Setup adds the controllers of single snapshots to a manager whose cache has
// CacheOptions: the one of the snapshots, and the one that lets their claims go.
// Groups are nil where there are none.
func Setup(ctx context.Context, m ctrl.Manager, events *kube.Events, groups *Groups, o *Options) error {
	claims := NewClaims(m.GetClient(), m.GetAPIReader(), groups, kube.RetryAfterConflict(o.RetryStart))
	if groups != nil {
		groups.Claims = claims
	}
	k := &singleKind{client: m.GetClient(), options: o, groups: groups, claims: claims}
	if err := index(ctx, m); err != nil {
		return err
	}
	if o.Distributed {
		if err := kube.EnsureInformers(ctx, m, &corev1.Node{}); err != nil {
			return err
		}
	}
	engine := NewReconciler(m.GetClient(), m.GetAPIReader(), k, events, o)
	err := errors.Join(k.setUpSnapshots(m, engine), claims.setUp(m, o), engine.SetUpOrphans(m), engine.SetUpStranded(m), engine.registerMetrics(m, groups))
	if err != nil {
		return fmt.Errorf("adding the controllers: %w", err)
	}
	return nil
}

func (k *singleKind) setUpSnapshots(m ctrl.Manager, engine *Reconciler) error {
	b := engine.NewController(m).
		Watches(&snapshotv1.VolumeSnapshotClass{}, engine.Enqueue(k.waitingForClass), builder.WithPredicates(IsNotDeleted(), kube.SkipInitialList())).
		Watches(&corev1.PersistentVolumeClaim{}, engine.Enqueue(k.waitingForClaim), builder.WithPredicates(claimChanges(), kube.SkipInitialList())).
		Watches(&corev1.PersistentVolume{}, engine.Enqueue(k.waitingForVolume), builder.WithPredicates(IsCreated(), kube.SkipInitialList()))
	if k.groups != nil {
		b.WatchesRawSource(source.Channel(k.groups.Gone, &handler.EnqueueRequestForObject{}))
	}
	return engine.Complete(b)
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
