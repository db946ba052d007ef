package resize

import (
	"context"
	"fmt"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// expand does what is to be done next about the size of the claim's volume.
func (r *Reconciler) expand(ctx context.Context, s *seen) (time.Duration, error) {
	next := decideExpansion(*s, r.options, r.now())
	switch next.kind {
	case say:
		r.events.Warning(s.claim, next.reason, next.message)
	case later:
		return next.after, nil
	case tidy:
		return 0, r.setVolume(ctx, s, func(v *corev1.PersistentVolume) { delete(v.Annotations, kube.AnnPreResizeCapacity) })
	case resume:
		if !s.live {
			return 0, errStale // The cache may not show yet how the call on record has ended.
		}
		return r.grow(ctx, s, next)
	case begin:
		return r.grow(ctx, s, next)
	case settle:
		after, err := r.grow(ctx, s, next)
		if s.sizeRefused {
			return r.expand(ctx, s)
		}
		return after, err
	default:
	}
	return 0, nil
}

// grow takes the volume to a size.
func (r *Reconciler) grow(ctx context.Context, s *seen, next step) (time.Duration, error) {
	w := expansion(s, next)
	request, err := r.expandRequest(ctx, s, next.size)
	if err != nil {
		return r.unready(s, w, err)
	}
	if next.unused {
		pod, err := r.users.awaited(ctx, s.claim)
		if err != nil {
			return 0, r.hindered(s, w, err)
		}
		if pod != "" {
			return r.busy(s, pod), nil
		}
	}
	if next.kind != resume {
		if err := r.record(ctx, s, func(c *corev1.PersistentVolumeClaim) { beginExpansion(c, next.size, r.now()) }); err != nil {
			return 0, r.hindered(s, w, err)
		}
	}
	answer, err := r.askToExpand(ctx, s, w, request)
	if err != nil {
		return r.failed(ctx, s, w, err)
	}
	return 0, r.hindered(s, w, r.grown(ctx, s, w, answer))
}

// expansion is the work of expanding the claim's volume. A driver that fails inside
// may have grown it before. The request may be lowered all the same, for that is
// what many drivers answer that have no room: the answer to the lower request says
// how large the volume is.
func expansion(s *seen, next step) work {
	size := next.size
	to := quantity(size)
	return work{
		what:    fmt.Sprintf("resizing volume %s to %s", s.volume.Name, to.String()),
		going:   kube.ReasonResizing,
		failed:  kube.ReasonVolumeResizeFailed,
		since:   corev1.PersistentVolumeClaimResizing,
		resumed: next.kind == resume,
		doubtful: func(f refusal) bool {
			return f.code == codes.Internal.String() || f.code == codes.Unknown.String()
		},
		refuse:  refuseExpansion,
		refused: &s.sizeRefused,
		current: func(s *seen) bool { return s.underWay(size) },
	}
}

// underWay tells whether an expansion to the size is on record.
func (s *seen) underWay(size int64) bool {
	return s.allocated() == size && s.expansion() == corev1.PersistentVolumeClaimControllerResizeInProgress
}

func (r *Reconciler) askToExpand(ctx context.Context, s *seen, w work, request *csipb.ControllerExpandVolumeRequest) (*csipb.ControllerExpandVolumeResponse, error) {
	if s.nodeOnly() {
		return &csipb.ControllerExpandVolumeResponse{
			CapacityBytes: request.GetCapacityRange().GetRequiredBytes(), NodeExpansionRequired: true,
		}, nil
	}
	defer r.meanwhile(s.claim, w)()
	return r.driver.ControllerExpandVolume(ctx, request)
}

// grown records that the volume has grown: at the volume first, because it is
// what the node, and whoever resumes, goes by.
func (r *Reconciler) grown(ctx context.Context, s *seen, w work, answer *csipb.ControllerExpandVolumeResponse) error {
	before := ""
	if answer.GetNodeExpansionRequired() && r.options.NoteOldSize {
		old := s.claim.Status.Capacity[corev1.ResourceStorage]
		before = old.String()
	}
	size := answer.GetCapacityBytes()
	if err := r.setVolume(ctx, s, func(v *corev1.PersistentVolume) { growVolume(v, size, before) }); err != nil {
		return err
	}
	if answer.GetNodeExpansionRequired() {
		if err := r.settle(ctx, s, w.current, func(c *corev1.PersistentVolumeClaim) { leaveToNode(c, size, r.now()) }); err != nil {
			return err
		}
		r.events.Normal(s.claim, kube.ReasonFileSystemResizeRequired, "Require file system resize of volume on node")
		return nil
	}
	if err := r.settle(ctx, s, w.current, func(c *corev1.PersistentVolumeClaim) { endExpansion(c, size) }); err != nil {
		return err
	}
	r.events.Normal(s.claim, kube.ReasonVolumeResizeSuccessful, "Resize volume succeeded")
	return nil
}
