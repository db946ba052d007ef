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

// handleDangling reports dangling attachments that two checks in a row have
// found, and detaches them if the user has enabled that. A volume that cannot
// be detached does not stop the others.
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
	message := fmt.Sprintf("the driver lists volume %s as published on node %s, and there is no VolumeAttachment for it", p.handle, p.nodeID)
	switch {
	case d.possibleOwner != "":
		message += fmt.Sprintf("; it is not detached, because it may belong to VolumeAttachment %s, whose volume or node is unknown", d.possibleOwner)
	case !s.options.DetachDangling:
		message += "; detach it at the storage, or run the attacher with --detach-dangling"
	}
	klog.FromContext(ctx).Info("Found a dangling attachment", "volumeHandle", p.handle, "node", p.nodeID, "possibleOwner", d.possibleOwner)
	if d.volume != nil {
		about := state{volume: d.volume}
		s.events.Warning(about.eventTarget(), kube.ReasonDanglingPublication, message)
	}
}

// detachDangling detaches a volume if it still dangles right before the call.
// The call may wait for minutes for other calls about the volume, and
// VolumeAttachments may appear in the meantime.
func (s *driftChecker) detachDangling(ctx context.Context, p publication, d danglingInfo) error {
	err := s.callUnpublish(ctx, record{handle: p.handle, nodeID: p.nodeID, secret: d.secret}, func(ctx context.Context) error {
		return s.verifyDangling(ctx, p, d)
	})
	switch {
	case errors.Is(err, csi.ErrPreconditionFailed):
		klog.FromContext(ctx).Info("Not detaching a dangling attachment", "volumeHandle", p.handle, "node", p.nodeID, "reason", err.Error())
		return nil
	case err != nil:
		return fmt.Errorf("detaching dangling volume %s from node %s: %w", p.handle, p.nodeID, err)
	}
	klog.FromContext(ctx).Info("Detached a dangling attachment", "volumeHandle", p.handle, "node", p.nodeID)
	return nil
}

// verifyDangling returns nil if a publication certainly dangles according to
// the API server: no VolumeAttachment stands for it or may do so, and the
// volume still belongs to this cluster.
func (s *driftChecker) verifyDangling(ctx context.Context, p publication, d danglingInfo) error {
	c, err := s.readFromAPI(ctx, d)
	if err != nil {
		return err
	}
	c.listed = publications{p: true}
	current, found := c.dangling()[p]
	switch {
	case !found:
		return fmt.Errorf("a VolumeAttachment for it exists now, or the volume does not belong to this cluster any more: %w", csi.ErrPreconditionFailed)
	case current.possibleOwner != "":
		return fmt.Errorf("it may belong to VolumeAttachment %s: %w", current.possibleOwner, csi.ErrPreconditionFailed)
	}
	return nil
}

// readFromAPI reads from the API server all VolumeAttachments, the dangling
// volume, and the volumes of those VolumeAttachments that have no record.
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
