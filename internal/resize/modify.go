package resize

import (
	"context"
	"fmt"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// modify does the next step for the attributes of the claim's volume.
func (r *Reconciler) modify(ctx context.Context, s *state) (time.Duration, error) {
	next := decideModification(*s, r.options, r.now())
	switch next.action {
	case report:
		r.events.Warning(s.claim, next.reason, next.message)
	case retryLater:
		return next.after, nil
	case waitForClass:
		return 0, r.waitForClass(ctx, s, next)
	case cancel:
		return 0, r.cancel(ctx, s)
	case resume:
		if !s.fromAPIServer {
			return 0, errConflict // The cached claim may not show the result of the recorded call yet.
		}
		return r.modifyVolume(ctx, s, next)
	case start:
		return r.modifyVolume(ctx, s, next)
	case confirm:
		return r.confirmClass(ctx, s, next)
	default:
	}
	return 0, nil
}

// confirmClass calls the driver once more with a class that is cancelled if the
// driver rejects it again.
func (r *Reconciler) confirmClass(ctx context.Context, s *state, next step) (time.Duration, error) {
	after, err := r.modifyVolume(ctx, s, next)
	if s.classRejected {
		return r.modify(ctx, s)
	}
	return after, err
}

func (r *Reconciler) waitForClass(ctx context.Context, s *state, next step) error {
	desired := *s.claim.Spec.VolumeAttributesClassName
	if err := r.patchClaimStatus(ctx, s, func(c *corev1.PersistentVolumeClaim) { setClassPending(c, desired) }); err != nil {
		r.events.WarnIfDenied(s.claim, kube.ReasonVolumeModifyFailed, err)
		return err
	}
	r.events.Warning(s.claim, next.reason, next.message)
	return nil
}

func (r *Reconciler) cancel(ctx context.Context, s *state) error {
	rejected := s.claim.Status.ModifyVolumeStatus.TargetVolumeAttributesClassName
	before := s.claim
	if err := r.patchClaimStatus(ctx, s, cancelModification); err != nil {
		r.events.WarnIfDenied(s.claim, kube.ReasonVolumeModifyFailed, err)
		return err
	}
	r.events.Normal(s.claim, kube.ReasonVolumeModifyCanceled, fmt.Sprintf("The claim does not request VolumeAttributesClass %q any more", rejected))
	if outcomeDoubt(before, corev1.PersistentVolumeClaimVolumeModifyingVolume) != "" {
		r.events.Warning(s.claim, kube.ReasonVolumeModifyFailed, fmt.Sprintf(
			"volume %s may have some attributes of a VolumeAttributesClass that driver %s rejected, and the claim has no class to return to: set a class on the claim to replace them",
			s.volume.Name, r.options.Driver))
	}
	return nil
}

// modifyVolume changes the volume to the attributes of a class.
func (r *Reconciler) modifyVolume(ctx context.Context, s *state, next step) (time.Duration, error) {
	name := next.class.Name
	op := modificationOperation(s, next)
	request, err := r.modifyRequest(ctx, s, next.class.Parameters)
	if err != nil {
		return r.reportNotReady(s, op, err)
	}
	if next.action != resume {
		if err := r.patchClaimStatus(ctx, s, func(c *corev1.PersistentVolumeClaim) { startModification(c, name, r.now()) }); err != nil {
			return 0, r.reportAPIError(s, op, err)
		}
	}
	if err := r.callModify(ctx, s, op, request); err != nil {
		return r.handleFailure(ctx, s, op, err)
	}
	return 0, r.reportAPIError(s, op, r.recordModified(ctx, s, op, name))
}

// recordModified records that the volume has the attributes of a class.
func (r *Reconciler) recordModified(ctx context.Context, s *state, op operation, class string) error {
	if err := r.patchVolume(ctx, s, func(v *corev1.PersistentVolume) { v.Spec.VolumeAttributesClassName = ptr.To(class) }); err != nil {
		return err
	}
	if err := r.recordResult(ctx, s, op.isCurrent, func(c *corev1.PersistentVolumeClaim) { finishModification(c, class) }); err != nil {
		return err
	}
	r.events.Normal(s.claim, kube.ReasonVolumeModifySuccessful, fmt.Sprintf("Successfully modified volume %s to VolumeAttributesClass %q", s.volume.Name, class))
	return nil
}

// modificationOperation describes a modification of the claim's volume to a
// class. If the driver fails with a code that is not infeasible, it may have
// changed some attributes.
func modificationOperation(s *state, next step) operation {
	class := next.class.Name
	return operation{
		what:            fmt.Sprintf("modifying volume %s to VolumeAttributesClass %q", s.volume.Name, class),
		progressReason:  kube.ReasonVolumeModify,
		failureReason:   kube.ReasonVolumeModifyFailed,
		condition:       corev1.PersistentVolumeClaimVolumeModifyingVolume,
		resumed:         next.action == resume,
		isDoubtful:      func(f rejection) bool { return !f.infeasible },
		recordRejection: rejectModification,
		rejected:        &s.classRejected,
		isCurrent: func(s *state) bool {
			record := s.claim.Status.ModifyVolumeStatus
			return record != nil && record.Status == corev1.PersistentVolumeClaimModifyVolumeInProgress && record.TargetVolumeAttributesClassName == class
		},
	}
}

func (r *Reconciler) callModify(ctx context.Context, s *state, op operation, request *csipb.ControllerModifyVolumeRequest) error {
	defer r.reportIfSlow(s.claim, op)()
	return r.driverWith(r.options.ModifyTimeout).ControllerModifyVolume(ctx, request)
}
