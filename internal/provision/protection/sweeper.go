package protection

import (
	"context"
	"fmt"
	"slices"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/provision/source"
)

// pageSize is how many snapshots are read at a time.
const pageSize = 500

// A sweeper finds snapshots that are still protected although no volume is being
// restored from them: holdfast or csi-provisioner died before it removed the finalizer.
type sweeper struct {
	controller *Controller
	interval   time.Duration
}

// Start sweeps at once and after every interval, until ctx ends. It runs on the leader
// only.
func (w *sweeper) Start(ctx context.Context) error {
	tick := time.NewTicker(w.interval)
	defer tick.Stop()
	for {
		if err := w.sweep(ctx); err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "Failed to check snapshots for leftover finalizers")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (w *sweeper) sweep(ctx context.Context) error {
	err := kube.EachPage(ctx, w.controller.apiReader, pageSize, func(page *snapshotv1.VolumeSnapshotList) error {
		for i := range page.Items {
			if err := w.check(ctx, &page.Items[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if meta.IsNoMatchError(err) {
		return nil // The snapshot CRDs are not installed.
	}
	if err != nil {
		return fmt.Errorf("looking at all snapshots: %w", err)
	}
	return nil
}

// check enqueues a snapshot that is ours and that no claim waits to be restored from. The
// controller retries until it succeeds.
func (w *sweeper) check(ctx context.Context, snapshot *snapshotv1.VolumeSnapshot) error {
	if ours, err := w.isOurSnapshot(ctx, snapshot); !ours || err != nil {
		return err
	}
	of := source.Source{Kind: source.KindSnapshot, Namespace: snapshot.Namespace, Name: snapshot.Name}
	waiting, err := w.controller.WaitingClaims(ctx, of)
	if err != nil || len(waiting) > 0 {
		return err // The end of the restore checks it, or the next sweep.
	}
	select {
	case w.controller.queue <- event.TypedGenericEvent[source.Source]{Object: of}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// isOurSnapshot reports whether a snapshot is protected and our driver's: provisioners of
// other drivers use the same finalizer for theirs. A snapshot without its content
// cannot be restored, so its finalizer is removed whichever driver it was of: the other
// driver's provisioner may be gone.
func (w *sweeper) isOurSnapshot(ctx context.Context, snapshot *snapshotv1.VolumeSnapshot) (bool, error) {
	if !slices.Contains(snapshot.Finalizers, kube.SnapshotSourceFinalizer) || snapshot.Status == nil {
		return false, nil
	}
	content := &snapshotv1.VolumeSnapshotContent{}
	name := types.NamespacedName{Name: ptr.Deref(snapshot.Status.BoundVolumeSnapshotContentName, "")}
	err := w.controller.apiReader.Get(ctx, name, content)
	switch {
	case apierrors.IsNotFound(err):
		return snapshot.DeletionTimestamp != nil, nil
	case err != nil:
		return false, err
	default:
		return content.Spec.Driver == w.controller.Driver, nil
	}
}
