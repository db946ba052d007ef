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

// A survey compares, now and then, what the driver says is published with the
// VolumeAttachments. Where they differ the driver is asked again, as if the
// status said nothing; what no VolumeAttachment tells of is reported.
type survey struct {
	*Reconciler
	attaches, detaches chan event.GenericEvent
	dangling           atomic.Int64
	// before are the dangling publications of the last pass: one that is seen
	// once may be on its way.
	before map[publication]bool
}

// buffered differences of a pass wait for no worker.
const buffered = 1024

func newSurvey(r *Reconciler) *survey {
	return &survey{Reconciler: r, attaches: make(chan event.GenericEvent, buffered), detaches: make(chan event.GenericEvent, buffered)}
}

// setup adds the survey to a manager, if it is wanted. What the driver can is
// asked at every pass: it may come back as another version.
func (s *survey) setup(m ctrl.Manager) error {
	if s.options.SurveyInterval <= 0 {
		return nil
	}
	return m.Add(s)
}

// possible tells whether the driver lists what is published where.
func (s *survey) possible() bool {
	info := s.driver.Info()
	return s.publishes() && info.Has(csipb.ControllerServiceCapability_RPC_LIST_VOLUMES) &&
		info.Has(csipb.ControllerServiceCapability_RPC_LIST_VOLUMES_PUBLISHED_NODES)
}

// Start surveys after every interval, until ctx ends. It runs on the leader only.
// A pass takes as long as it takes: each page has the time of one call, and the
// next pass comes an interval after the last one has ended.
func (s *survey) Start(ctx context.Context) error {
	timer := time.NewTimer(s.options.SurveyInterval)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		if s.possible() {
			if err := s.pass(ctx); err != nil && ctx.Err() == nil {
				klog.FromContext(ctx).Error(err, "The driver's publications could not be compared")
			}
		}
		timer.Reset(s.options.SurveyInterval)
	}
}

func (s *survey) pass(ctx context.Context) (err error) {
	c := &census{}
	if c.before, err = s.all(ctx); err != nil {
		return err
	}
	if c.listed, err = s.list(ctx); err != nil {
		return err
	}
	if c.after, err = s.all(ctx); err != nil {
		return err
	}
	if c.cluster, err = s.cluster(ctx); err != nil {
		return err
	}
	found := c.compare()
	for _, name := range found.contradicted {
		s.force(ctx, name)
	}
	return s.dangle(ctx, found.dangling)
}

// list asks the driver for everything.
func (s *survey) list(ctx context.Context) (publications, error) {
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

// force has the driver asked again about a VolumeAttachment.
func (s *survey) force(ctx context.Context, name string) {
	a := &storagev1.VolumeAttachment{}
	if found, err := get(ctx, s.client, name, a); !found || err != nil {
		return // It is gone, and with it the contradiction.
	}
	klog.FromContext(ctx).Info("The driver contradicts a VolumeAttachment; it is asked again",
		"volumeAttachment", name, "attached", a.Status.Attached, "deleting", a.DeletionTimestamp != nil)
	s.forced.add(name)
	lane := s.attaches
	if a.DeletionTimestamp != nil {
		lane = s.detaches
	}
	select {
	case lane <- event.GenericEvent{Object: a}:
	case <-ctx.Done():
	}
}
