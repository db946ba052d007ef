package resize

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// decideModification holds every rule about which attributes a volume is given,
// and when. It does no I/O; each rule is a row of its test. The rules about what
// is under way are those of KEP-3751, "VolumeAttributesClass".
func decideModification(s state, o *Options, now time.Time) step {
	desired, current := ptr.Deref(s.claim.Spec.VolumeAttributesClassName, ""), ptr.Deref(s.claim.Status.CurrentVolumeAttributesClassName, "")
	record := s.claim.Status.ModifyVolumeStatus
	switch {
	case !o.Modify:
		return step{action: none}
	case s.isModifying():
		return s.decideResume(o)
	case desired == current && record == nil:
		return step{action: none}
	case desired == current && !s.mayBePartlyModified():
		return s.decideCancel()
	case desired == "":
		return step{action: none} // The API allows nobody to give up a class that was applied.
	}
	if problem := s.classProblem(o); problem != nil {
		return *problem
	}
	if wait := s.classRetryDelay(o.RetryMax, now); wait > 0 {
		return step{action: retryLater, after: wait}
	}
	return step{action: start, class: s.desiredClass}
}

// mayBePartlyModified tells whether the volume has a class to go back to and some of what was
// refused may have been done: only what was infeasible from the first call on
// surely was not.
func (s *state) mayBePartlyModified() bool {
	return ptr.Deref(s.claim.Status.CurrentVolumeAttributesClassName, "") != "" &&
		(s.claim.Status.ModifyVolumeStatus.Status == corev1.PersistentVolumeClaimModifyVolumeInProgress ||
			outcomeDoubt(s.claim, corev1.PersistentVolumeClaimVolumeModifyingVolume) != "")
}

// decideCancel is about a class that was refused, with none to go back to. If an
// unanswered call may have applied it, it is asked for once more: the volume may
// have it, and then the claim has it too.
func (s *state) decideCancel() step {
	tried := s.claim.Status.ModifyVolumeStatus.Status != corev1.PersistentVolumeClaimModifyVolumePending
	if tried && s.canModify && s.targetClass != nil && !s.classRejected &&
		outcomeDoubt(s.claim, corev1.PersistentVolumeClaimVolumeModifyingVolume) == outcomeUnknown {
		return step{action: confirm, class: s.targetClass}
	}
	return step{action: cancel}
}

// decideResume is about a modification that may be under way: nothing else is asked for
// before it has been answered.
func (s *state) decideResume(o *Options) step {
	if !s.canModify {
		return cannotModify(o)
	}
	if s.targetClass == nil {
		return step{action: report, reason: kube.ReasonVolumeModifyFailed, message: fmt.Sprintf(
			"VolumeAttributesClass %q is gone, and the volume may already have been changed to it: create it again as it was, so that the change can be brought to an end",
			s.claim.Status.ModifyVolumeStatus.TargetVolumeAttributesClassName)}
	}
	return step{action: resume, class: s.targetClass}
}

// classProblem is what stands in the way of the class that the claim wants.
func (s *state) classProblem(o *Options) *step {
	name := *s.claim.Spec.VolumeAttributesClassName
	if !s.canModify {
		unable := cannotModify(o)
		return &unable
	}
	pending := step{action: waitForClass, reason: kube.ReasonVolumeModifyFailed}
	switch {
	case s.desiredClass == nil:
		pending.message = fmt.Sprintf("VolumeAttributesClass %q of the claim does not exist; the volume is modified when it does", name)
	case s.desiredClass.DriverName != o.Driver:
		pending.message = fmt.Sprintf("VolumeAttributesClass %q is for driver %s and the volume is of driver %s: choose another class",
			name, s.desiredClass.DriverName, o.Driver)
	default:
		return nil
	}
	return &pending
}

func cannotModify(o *Options) step {
	return step{action: report, reason: kube.ReasonVolumeModifyFailed, message: fmt.Sprintf(
		"the claim has a VolumeAttributesClass and driver %s cannot modify volumes: it does not announce MODIFY_VOLUME", o.Driver)}
}

// classRetryDelay is how long to wait before a class that was infeasible is tried
// again. One that was made since is another.
func (s *state) classRetryDelay(pause time.Duration, now time.Time) time.Duration {
	record := s.claim.Status.ModifyVolumeStatus
	if record == nil || record.Status != corev1.PersistentVolumeClaimModifyVolumeInfeasible || record.TargetVolumeAttributesClassName != s.desiredClass.Name {
		return 0
	}
	rejected := condition(s.claim, corev1.PersistentVolumeClaimVolumeModifyVolumeError)
	if rejected != nil && s.desiredClass.CreationTimestamp.After(rejected.LastTransitionTime.Time) {
		return 0
	}
	return remainingDelay(s.claim, corev1.PersistentVolumeClaimVolumeModifyVolumeError, pause, now)
}
