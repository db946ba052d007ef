package attach

import (
	"context"
	"errors"
	"fmt"

	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/klog/v2"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/kube"
)

// handleDangling reports what no VolumeAttachment tells of, and detaches it if that is
// wanted. One volume that cannot be detached does not keep the others attached.
func (s *driftChecker) handleDangling(ctx context.Context, found map[publication]danglingInfo) error {
	var errs []error
	current := map[publication]bool{}
	var lasting int64
	for p, d := range found {
		current[p] = true
		if !s.lastDangling[p] {
			continue
		}
		lasting++
		s.reportDangling(ctx, p, d)
		if s.options.DetachDangling && d.possibleOwner == "" {
			errs = append(errs, s.detachDangling(ctx, p, d))
		}
	}
	s.lastDangling = current
	s.danglingCount.Store(lasting)
	return errors.Join(errs...)
}

func (s *driftChecker) reportDangling(ctx context.Context, p publication, d danglingInfo) {
	message := fmt.Sprintf("the driver says that volume %s is published on node %s, and no VolumeAttachment says so", p.handle, p.nodeID)
	switch {
	case d.possibleOwner != "":
		message += fmt.Sprintf("; it is not detached, because VolumeAttachment %s may be about it: that does not tell its volume or its node", d.possibleOwner)
	case !s.options.DetachDangling:
		message += "; detach it at the storage, or give the attacher --detach-dangling"
	}
	klog.FromContext(ctx).Info("Found a dangling publication", "volumeHandle", p.handle, "node", p.nodeID, "doubt", d.possibleOwner)
	if d.volume != nil {
		about := state{volume: d.volume}
		s.events.Warning(about.eventTarget(), kube.ReasonDanglingPublication, message)
	}
}

// detachDangling detaches a volume, if it still dangles when the driver's turn for
// it has come: that may take minutes, and VolumeAttachments come meanwhile.
func (s *driftChecker) detachDangling(ctx context.Context, p publication, d danglingInfo) error {
	err := s.callUnpublish(ctx, record{handle: p.handle, nodeID: p.nodeID, secret: d.secret}, func(ctx context.Context) error {
		return s.verifyDangling(ctx, p, d)
	})
	switch {
	case errors.Is(err, csi.ErrPreconditionFailed):
		klog.FromContext(ctx).Info("A dangling publication is left alone", "volumeHandle", p.handle, "node", p.nodeID, "reason", err.Error())
		return nil
	case err != nil:
		return fmt.Errorf("detaching volume %s, which dangles, from node %s: %w", p.handle, p.nodeID, err)
	}
	klog.FromContext(ctx).Info("Detached a dangling publication", "volumeHandle", p.handle, "node", p.nodeID)
	return nil
}

// verifyDangling is nil if a publication surely dangles, by the API server itself: there
// is no VolumeAttachment that tells of it, or that may, and the volume still is
// this cluster's.
func (s *driftChecker) verifyDangling(ctx context.Context, p publication, d danglingInfo) error {
	c, err := s.readFromAPI(ctx, d)
	if err != nil {
		return err
	}
	c.listed = publications{p: true}
	current, found := c.dangling()[p]
	switch {
	case !found:
		return fmt.Errorf("a VolumeAttachment tells of it by now, or the volume is not this cluster's any more: %w", csi.ErrPreconditionFailed)
	case current.possibleOwner != "":
		return fmt.Errorf("VolumeAttachment %s may tell of it: %w", current.possibleOwner, csi.ErrPreconditionFailed)
	}
	return nil
}

// readFromAPI is what the API server says: all VolumeAttachments, the volume that is asked
// about, and those that tell what a VolumeAttachment without a record is about.
func (s *driftChecker) readFromAPI(ctx context.Context, d danglingInfo) (*comparison, error) {
	list := &storagev1.VolumeAttachmentList{}
	if err := s.apiReader.List(ctx, list); err != nil {
		return nil, fmt.Errorf("listing VolumeAttachments: %w", err)
	}
	cluster, err := s.readCluster(ctx)
	if err != nil {
		return nil, err
	}
	c := &comparison{clusterState: cluster}
	names := map[string]bool{}
	if d.volume != nil {
		names[d.volume.Name] = true
	}
	for i := range list.Items {
		a := &list.Items[i]
		if !s.isOurs(a) {
			continue
		}
		c.after = append(c.after, *a)
		if recordOf(a).handle == "" {
			names[volumeName(a)] = true
		}
	}
	for name := range names {
		if err := c.refreshVolume(ctx, s.apiReader, s.options, name); err != nil {
			return nil, err
		}
	}
	return c, nil
}
