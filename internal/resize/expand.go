package resize

import (
	"context"
	"fmt"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/kube"
)

// expand does the next step for the size of the claim's volume.
func (r *Reconciler) expand(ctx context.Context, s *state) (time.Duration, error) {
	next := decideExpansion(*s, r.options, r.now())
	switch next.action {
	case report:
		r.events.Warning(s.claim, next.reason, next.message)
	case retryLater:
		return next.after, nil
	case cleanUp:
		err := r.patchVolume(ctx, s, func(v *corev1.PersistentVolume) { delete(v.Annotations, kube.AnnPreResizeCapacity) })
		r.events.WarnIfDenied(s.claim, kube.ReasonVolumeResizeFailed, err)
		return 0, err
	case resume:
		if !s.fromAPIServer {
			return 0, errConflict // The cached claim may not show the result of the recorded call yet.
		}
		return r.expandVolume(ctx, s, next)
	case start:
		return r.expandVolume(ctx, s, next)
	case confirm:
		after, err := r.expandVolume(ctx, s, next)
		if s.sizeRejected {
			return r.expand(ctx, s)
		}
		return after, err
	default:
	}
	return 0, nil
}

// expandVolume expands the volume to a size.
func (r *Reconciler) expandVolume(ctx context.Context, s *state, next step) (time.Duration, error) {
	op := expansionOperation(s, next)
	request, err := r.expandRequest(ctx, s, op, next.size)
	if err != nil {
		return r.reportNotReady(s, op, err)
	}
	if next.unused {
		pod, err := r.pods.findUser(ctx, s.claim)
		if err != nil {
			return 0, r.reportAPIError(s, op, err)
		}
		if pod != "" {
			return r.reportInUse(s, pod), nil
		}
	}
	if next.action != resume {
		if err := r.patchClaimStatus(ctx, s, func(c *corev1.PersistentVolumeClaim) { startExpansion(c, next.size, op.nodeOnly, r.now()) }); err != nil {
			return 0, r.reportAPIError(s, op, err)
		}
	}
	response, err := r.callExpand(ctx, s, op, request)
	if err != nil {
		return r.handleFailure(ctx, s, op, err)
	}
	return 0, r.reportAPIError(s, op, r.recordExpanded(ctx, s, op, response))
}

// expansionOperation describes an expansion of the claim's volume. If the
// driver returns Internal or Unknown, it may have expanded the volume. The
// request may be lowered nevertheless, because many drivers return these codes
// when they are out of capacity: the response to the lower request has the
// volume's size.
func expansionOperation(s *state, next step) operation {
	size := next.size
	to := quantity(size)
	return operation{
		what:           fmt.Sprintf("resizing volume %s to %s", s.volume.Name, to.String()),
		progressReason: kube.ReasonResizing,
		failureReason:  kube.ReasonVolumeResizeFailed,
		condition:      corev1.PersistentVolumeClaimResizing,
		resumed:        next.action == resume,
		nodeOnly:       s.skipsController(next),
		isDoubtful: func(f rejection) bool {
			return f.code == codes.Internal.String() || f.code == codes.Unknown.String()
		},
		recordRejection: rejectExpansion,
		rejected:        &s.sizeRejected,
		isCurrent:       func(s *state) bool { return s.isExpandingTo(size) },
	}
}

// isExpandingTo reports whether an expansion to the size is on record and in
// progress.
func (s *state) isExpandingTo(size int64) bool {
	return s.allocated() == size && s.expansionStatus() == corev1.PersistentVolumeClaimControllerResizeInProgress
}

func (r *Reconciler) callExpand(ctx context.Context, s *state, op operation, request *csipb.ControllerExpandVolumeRequest) (*csipb.ControllerExpandVolumeResponse, error) {
	if op.nodeOnly {
		return &csipb.ControllerExpandVolumeResponse{
			CapacityBytes: request.GetCapacityRange().GetRequiredBytes(), NodeExpansionRequired: true,
		}, nil
	}
	defer r.reportIfSlow(s.claim, op)()
	return r.driverWith(r.options.ExpandTimeout).ControllerExpandVolume(ctx, request)
}

// driverWith returns the driver with a timeout of its own for calls; 0 changes nothing.
func (r *Reconciler) driverWith(timeout time.Duration) *csi.Driver {
	if timeout == 0 {
		return r.driver
	}
	return r.driver.WithTimeout(timeout)
}

// recordExpanded records that the volume was expanded. It writes the volume
// first, because the node and a resumed operation read that.
func (r *Reconciler) recordExpanded(ctx context.Context, s *state, op operation, response *csipb.ControllerExpandVolumeResponse) error {
	before := ""
	if response.GetNodeExpansionRequired() && r.options.AnnotateOldSize {
		old := s.claim.Status.Capacity[corev1.ResourceStorage]
		before = old.String()
	}
	size := response.GetCapacityBytes()
	if err := r.patchVolume(ctx, s, func(v *corev1.PersistentVolume) { setVolumeSize(v, size, before) }); err != nil {
		return err
	}
	if response.GetNodeExpansionRequired() {
		if err := r.recordResult(ctx, s, op.isCurrent, func(c *corev1.PersistentVolumeClaim) { setNodePending(c, size, r.now()) }); err != nil {
			return err
		}
		r.events.Normal(s.claim, kube.ReasonFileSystemResizeRequired, "Require file system resize of volume on node")
		return nil
	}
	if err := r.recordResult(ctx, s, op.isCurrent, func(c *corev1.PersistentVolumeClaim) { finishExpansion(c, size) }); err != nil {
		return err
	}
	r.events.Normal(s.claim, kube.ReasonVolumeResizeSuccessful, "Resize volume succeeded")
	return nil
}
