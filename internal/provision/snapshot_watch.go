package provision

import (
	"context"
	"fmt"
	"slices"
	"sync"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// snapshotStates has, for each snapshot that claims wait for, its state when it last woke
// them. Each of those claims reads the snapshot and its content from the API server, so
// that only a change that can matter to them may do so: there are many others, and
// anybody who may write a snapshot can cause them.
type snapshotStates struct{ byKey sync.Map }

// changed records a state and reports whether it differs from the last one.
func (s *snapshotStates) changed(key, state string) bool {
	last, known := s.byKey.Swap(key, state)
	return !known || last != state
}

// enqueueWaitingForSnapshot returns a handler that enqueues the claims that wait for a
// snapshot, if what they wait for has changed. The watch has the snapshot's name only, so
// the snapshot is read once for all of them.
func (r *Reconciler) enqueueWaitingForSnapshot() handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(r.requestsForSnapshot)
}

func (r *Reconciler) requestsForSnapshot(ctx context.Context, o client.Object) []reconcile.Request {
	key := snapshotKey(o)[0]
	waiting := r.requestsFor(ctx, claimsBySource, key)
	if len(waiting) == 0 {
		r.snapshots.byKey.Delete(key)
		return nil
	}
	var snapshot *snapshotv1.VolumeSnapshot
	if err := kube.GetIfExists(ctx, r.apiReader, client.ObjectKeyFromObject(o), &snapshot); err != nil {
		return waiting // They report it.
	}
	if !r.snapshots.changed(key, restoreState(snapshot)) {
		return nil
	}
	return waiting
}

// restoreState returns what decides whether and how a snapshot can be restored.
func restoreState(s *snapshotv1.VolumeSnapshot) string {
	if s == nil {
		return ""
	}
	status := ptr.Deref(s.Status, snapshotv1.VolumeSnapshotStatus{})
	// A finalizer matters once the snapshot is being deleted. Before, each claim adds one.
	deleting := s.DeletionTimestamp != nil
	protected := deleting && slices.Contains(s.Finalizers, kube.SnapshotSourceFinalizer)
	return fmt.Sprintf("%s %t %t %t %q %s", s.UID, deleting, protected, ptr.Deref(status.ReadyToUse, false),
		ptr.Deref(status.BoundVolumeSnapshotContentName, ""), status.RestoreSize.String())
}
