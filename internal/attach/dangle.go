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

// dangle reports what no VolumeAttachment tells of, and detaches it if that is
// wanted. One volume that cannot be detached does not keep the others attached.
func (s *survey) dangle(ctx context.Context, found map[publication]dangler) error {
	var errs []error
	now := map[publication]bool{}
	var lasting int64
	for p, d := range found {
		now[p] = true
		if !s.before[p] {
			continue
		}
		lasting++
		s.report(ctx, p, d)
		if s.options.DetachDangling && d.doubt == "" {
			errs = append(errs, s.detachDangling(ctx, p, d))
		}
	}
	s.before = now
	s.dangling.Store(lasting)
	return errors.Join(errs...)
}

func (s *survey) report(ctx context.Context, p publication, d dangler) {
	message := fmt.Sprintf("the driver says that volume %s is published on node %s, and no VolumeAttachment says so", p.handle, p.node)
	switch {
	case d.doubt != "":
		message += fmt.Sprintf("; it is not detached, because VolumeAttachment %s may be about it: that does not tell its volume or its node", d.doubt)
	case !s.options.DetachDangling:
		message += "; detach it at the storage, or give the attacher --detach-dangling"
	}
	klog.FromContext(ctx).Info("Found a dangling publication", "volumeHandle", p.handle, "node", p.node, "doubt", d.doubt)
	if d.volume != nil {
		seen := seen{volume: d.volume}
		s.events.Warning(seen.concerned(), kube.ReasonDanglingPublication, message)
	}
}

// detachDangling detaches a volume, if it still dangles when the driver's turn for
// it has come: that may take minutes, and VolumeAttachments come meanwhile.
func (s *survey) detachDangling(ctx context.Context, p publication, d dangler) error {
	err := s.take(ctx, record{handle: p.handle, node: p.node, secret: d.secret}, func(ctx context.Context) error {
		return s.dangles(ctx, p, d)
	})
	switch {
	case errors.Is(err, csi.ErrPreconditionFailed):
		klog.FromContext(ctx).Info("A dangling publication is left alone", "volumeHandle", p.handle, "node", p.node, "reason", err.Error())
		return nil
	case err != nil:
		return fmt.Errorf("detaching volume %s, which dangles, from node %s: %w", p.handle, p.node, err)
	}
	klog.FromContext(ctx).Info("Detached a dangling publication", "volumeHandle", p.handle, "node", p.node)
	return nil
}

// dangles is nil if a publication surely dangles, by the API server itself: there
// is no VolumeAttachment that tells of it, or that may, and the volume still is
// this cluster's.
func (s *survey) dangles(ctx context.Context, p publication, d dangler) error {
	c, err := s.now(ctx, d)
	if err != nil {
		return err
	}
	c.listed = publications{p: true}
	now, still := c.dangling()[p]
	switch {
	case !still:
		return fmt.Errorf("a VolumeAttachment tells of it by now, or the volume is not this cluster's any more: %w", csi.ErrPreconditionFailed)
	case now.doubt != "":
		return fmt.Errorf("VolumeAttachment %s may tell of it: %w", now.doubt, csi.ErrPreconditionFailed)
	}
	return nil
}

// now is what the API server says: all VolumeAttachments, the volume that is asked
// about, and those that tell what a VolumeAttachment without a record is about.
func (s *survey) now(ctx context.Context, d dangler) (*census, error) {
	list := &storagev1.VolumeAttachmentList{}
	if err := s.live.List(ctx, list); err != nil {
		return nil, fmt.Errorf("listing VolumeAttachments: %w", err)
	}
	known, err := s.cluster(ctx)
	if err != nil {
		return nil, err
	}
	c := &census{cluster: known}
	names := map[string]bool{}
	if d.volume != nil {
		names[d.volume.Name] = true
	}
	for i := range list.Items {
		a := &list.Items[i]
		if !s.ours(a) {
			continue
		}
		c.after = append(c.after, *a)
		if recordOf(a).handle == "" {
			names[volumeName(a)] = true
		}
	}
	for name := range names {
		if err := c.renew(ctx, s.live, s.options, name); err != nil {
			return nil, err
		}
	}
	return c, nil
}
