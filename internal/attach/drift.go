package attach

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// A driftChecker periodically compares the driver's list of published volumes
// with the VolumeAttachments. Where they differ it requests a resync: the
// driver is called again, whatever the status says. It reports publications
// without a VolumeAttachment.
type driftChecker struct {
	*Reconciler
	attachEvents, detachEvents chan event.GenericEvent
	danglingCount              atomic.Int64
	// lastDangling has the dangling publications of the last check. A
	// publication that is found only once may belong to an operation that is
	// still running.
	lastDangling map[publication]bool
}

// resyncBuffer is how many resync requests can wait for a worker.
const resyncBuffer = 1024

func newDriftChecker(r *Reconciler) *driftChecker {
	return &driftChecker{Reconciler: r, attachEvents: make(chan event.GenericEvent, resyncBuffer), detachEvents: make(chan event.GenericEvent, resyncBuffer)}
}

// addTo adds the checker to a manager, if it is enabled. Each check looks at
// the driver's capabilities again, because the driver may restart with another
// version.
func (s *driftChecker) addTo(m ctrl.Manager) error {
	if s.options.DriftCheckInterval <= 0 {
		return nil
	}
	return m.Add(s)
}

// isSupported reports whether the driver lists where its volumes are published.
func (s *driftChecker) isSupported() bool {
	info := s.driver.Info()
	return s.canPublish() && info.Has(csipb.ControllerServiceCapability_RPC_LIST_VOLUMES) &&
		info.Has(csipb.ControllerServiceCapability_RPC_LIST_VOLUMES_PUBLISHED_NODES)
}

// Start checks after every interval until ctx ends. It runs on the leader only.
// The timeout of a call applies to each page, not to the whole check, and the
// interval starts when a check has ended.
func (s *driftChecker) Start(ctx context.Context) error {
	timer := time.NewTimer(s.options.DriftCheckInterval)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		if s.isSupported() {
			if err := s.check(ctx); err != nil && ctx.Err() == nil {
				klog.FromContext(ctx).Error(err, "Comparing the driver's list with the VolumeAttachments failed")
			}
		}
		timer.Reset(s.options.DriftCheckInterval)
	}
}

func (s *driftChecker) check(ctx context.Context) (err error) {
	c := &comparison{}
	if c.before, err = s.allAttachments(ctx); err != nil {
		return err
	}
	if c.listed, err = s.listPublications(ctx); err != nil {
		return err
	}
	if c.after, err = s.allAttachments(ctx); err != nil {
		return err
	}
	if c.clusterState, err = s.readCluster(ctx); err != nil {
		return err
	}
	found := c.compare()
	for _, name := range found.mismatched {
		s.requestResync(ctx, name)
	}
	return s.handleDangling(ctx, found.dangling)
}

// listPublications reads all publications from the driver.
func (s *driftChecker) listPublications(ctx context.Context) (publications, error) {
	listed := publications{}
	for entry, err := range s.driver.ListVolumes(ctx, s.options.PageSize) {
		if err != nil {
			return nil, fmt.Errorf("listing the driver's volumes: %w", err)
		}
		for _, node := range entry.GetStatus().GetPublishedNodeIds() {
			listed[publication{entry.GetVolume().GetVolumeId(), node}] = true
		}
	}
	return listed, nil
}

// requestResync requests that the driver is called again for a
// VolumeAttachment.
func (s *driftChecker) requestResync(ctx context.Context, name string) {
	var a *storagev1.VolumeAttachment
	if err := kube.GetIfExists(ctx, s.client, client.ObjectKey{Name: name}, &a); err != nil || a == nil {
		return // It is gone, so there is nothing to compare any more.
	}
	klog.FromContext(ctx).Info("The status of a VolumeAttachment differs from the driver's list; calling the driver again",
		"volumeAttachment", name, "attached", a.Status.Attached, "deleting", a.DeletionTimestamp != nil)
	s.resyncs.add(name)
	events := s.attachEvents
	if a.DeletionTimestamp != nil {
		events = s.detachEvents
	}
	select {
	case events <- event.GenericEvent{Object: a}:
	case <-ctx.Done():
	}
}
