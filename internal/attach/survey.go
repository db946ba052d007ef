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
	"sigs.k8s.io/controller-runtime/pkg/event"
)

// A driftChecker compares, now and then, what the driver says is published with the
// VolumeAttachments. Where they differ the driver is asked again, as if the
// status said nothing; what no VolumeAttachment tells of is reported.
type driftChecker struct {
	*Reconciler
	attachEvents, detachEvents chan event.GenericEvent
	danglingCount              atomic.Int64
	// lastDangling are the dangling publications of the last pass: one that is seen
	// once may be on its way.
	lastDangling map[publication]bool
}

// resyncBuffer differences of a pass wait for no worker.
const resyncBuffer = 1024

func newDriftChecker(r *Reconciler) *driftChecker {
	return &driftChecker{Reconciler: r, attachEvents: make(chan event.GenericEvent, resyncBuffer), detachEvents: make(chan event.GenericEvent, resyncBuffer)}
}

// addTo adds the survey to a manager, if it is wanted. What the driver can is
// asked at every pass: it may come back as another version.
func (s *driftChecker) addTo(m ctrl.Manager) error {
	if s.options.DriftCheckInterval <= 0 {
		return nil
	}
	return m.Add(s)
}

// isSupported tells whether the driver lists what is published where.
func (s *driftChecker) isSupported() bool {
	info := s.driver.Info()
	return s.canPublish() && info.Has(csipb.ControllerServiceCapability_RPC_LIST_VOLUMES) &&
		info.Has(csipb.ControllerServiceCapability_RPC_LIST_VOLUMES_PUBLISHED_NODES)
}

// Start surveys after every interval, until ctx ends. It runs on the leader only.
// A pass takes as long as it takes: each page has the time of one call, and the
// next pass comes an interval after the last one has ended.
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
				klog.FromContext(ctx).Error(err, "The driver's publications could not be compared")
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

// listPublications asks the driver for everything.
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

// requestResync has the driver asked again about a VolumeAttachment.
func (s *driftChecker) requestResync(ctx context.Context, name string) {
	a := &storagev1.VolumeAttachment{}
	if found, err := get(ctx, s.client, name, a); !found || err != nil {
		return // It is gone, and with it the contradiction.
	}
	klog.FromContext(ctx).Info("The driver contradicts a VolumeAttachment; it is asked again",
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
