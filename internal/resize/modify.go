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

// modify does what is to be done next about the attributes of the claim's
// volume.
func (r *Reconciler) modify(ctx context.Context, s *seen) (time.Duration, error) {
	next := decideModification(*s, r.options, r.now())
	switch next.kind {
	case say:
		r.events.Warning(s.claim, next.reason, next.message)
	case later:
		return next.after, nil
	case await:
		return 0, r.await(ctx, s, next)
	case cancel:
		return 0, r.cancel(ctx, s)
	case resume:
		if !s.live {
			return 0, errStale // The cache may not show yet how the call on record has ended.
		}
		return r.change(ctx, s, next)
	case begin:
		return r.change(ctx, s, next)
	case settle:
		return r.settleClass(ctx, s, next)
	default:
	}
	return 0, nil
}

// settleClass asks once more for a class that is given up if it is refused again.
func (r *Reconciler) settleClass(ctx context.Context, s *seen, next step) (time.Duration, error) {
	after, err := r.change(ctx, s, next)
	if s.classRefused {
		return r.modify(ctx, s)
	}
	return after, err
}

func (r *Reconciler) await(ctx context.Context, s *seen, next step) error {
	wanted := *s.claim.Spec.VolumeAttributesClassName
	if err := r.record(ctx, s, func(c *corev1.PersistentVolumeClaim) { awaitClass(c, wanted) }); err != nil {
		return err
	}
	r.events.Warning(s.claim, next.reason, next.message)
	return nil
}

func (r *Reconciler) cancel(ctx context.Context, s *seen) error {
	refused := s.claim.Status.ModifyVolumeStatus.TargetVolumeAttributesClassName
	before := s.claim
	if err := r.record(ctx, s, cancelModification); err != nil {
		return err
	}
	r.events.Normal(s.claim, kube.ReasonVolumeModifyCanceled, fmt.Sprintf("The claim does not want VolumeAttributesClass %q any more", refused))
	if doubt(before, corev1.PersistentVolumeClaimVolumeModifyingVolume) != "" {
		r.events.Warning(s.claim, kube.ReasonVolumeModifyFailed, fmt.Sprintf(
			"volume %s may have some attributes of a VolumeAttributesClass that driver %s has refused, and the claim has no class to go back to: give it one, and they are replaced",
			s.volume.Name, r.options.Driver))
	}
	return nil
}

// change gives the volume the attributes of a class.
func (r *Reconciler) change(ctx context.Context, s *seen, next step) (time.Duration, error) {
	name := next.class.Name
	w := modification(s, next)
	request, err := r.modifyRequest(ctx, s, next.class.Parameters)
	if err != nil {
		return r.unready(s, w, err)
	}
	if next.kind != resume {
		if err := r.record(ctx, s, func(c *corev1.PersistentVolumeClaim) { beginModification(c, name, r.now()) }); err != nil {
			return 0, r.hindered(s, w, err)
		}
	}
	if err := r.askToModify(ctx, s, w, request); err != nil {
		return r.failed(ctx, s, w, err)
	}
	return 0, r.hindered(s, w, r.changed(ctx, s, w, name))
}

// changed records that the volume has the attributes of a class.
func (r *Reconciler) changed(ctx context.Context, s *seen, w work, class string) error {
	if err := r.setVolume(ctx, s, func(v *corev1.PersistentVolume) { v.Spec.VolumeAttributesClassName = ptr.To(class) }); err != nil {
		return err
	}
	if err := r.settle(ctx, s, w.current, func(c *corev1.PersistentVolumeClaim) { endModification(c, class) }); err != nil {
		return err
	}
	r.events.Normal(s.claim, kube.ReasonVolumeModifySuccessful, fmt.Sprintf("Successfully modified volume %s to VolumeAttributesClass %q", s.volume.Name, class))
	return nil
}

// modification is the work of changing the claim's volume to a class. Of what the
// driver refuses on the way, some may have been done.
func modification(s *seen, next step) work {
	class := next.class.Name
	return work{
		what:     fmt.Sprintf("modifying volume %s to VolumeAttributesClass %q", s.volume.Name, class),
		going:    kube.ReasonVolumeModify,
		failed:   kube.ReasonVolumeModifyFailed,
		since:    corev1.PersistentVolumeClaimVolumeModifyingVolume,
		resumed:  next.kind == resume,
		doubtful: func(f refusal) bool { return !f.infeasible },
		refuse:   refuseModification,
		refused:  &s.classRefused,
		current: func(s *seen) bool {
			record := s.claim.Status.ModifyVolumeStatus
			return record != nil && record.Status == corev1.PersistentVolumeClaimModifyVolumeInProgress && record.TargetVolumeAttributesClassName == class
		},
	}
}

func (r *Reconciler) askToModify(ctx context.Context, s *seen, w work, request *csipb.ControllerModifyVolumeRequest) error {
	defer r.meanwhile(s.claim, w)()
	return r.driver.ControllerModifyVolume(ctx, request)
}
