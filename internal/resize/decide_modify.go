package resize

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// decideModification has all rules about the attributes of a volume. It does no
// I/O, and its test has a row for each rule. The rules for a modification in
// progress are those of KEP-3751, "VolumeAttributesClass".
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
		return s.decideCancel(o)
	case desired == "":
		return step{action: none} // The API does not allow users to remove a class that was applied.
	}
	if problem := s.classProblem(o); problem != nil {
		return *problem
	}
	if wait := s.classRetryDelay(o.RetryMax, now); wait > 0 {
		return step{action: retryLater, after: wait}
	}
	return step{action: start, class: s.desiredClass}
}

// mayBePartlyModified reports whether the claim has a current class and a
// rejected call may have changed some attributes. Only a call that was
// infeasible from the first attempt certainly changed nothing.
func (s *state) mayBePartlyModified() bool {
	return ptr.Deref(s.claim.Status.CurrentVolumeAttributesClassName, "") != "" &&
		(s.claim.Status.ModifyVolumeStatus.Status == corev1.PersistentVolumeClaimModifyVolumeInProgress ||
			outcomeDoubt(s.claim, corev1.PersistentVolumeClaimVolumeModifyingVolume) != "")
}

// decideCancel decides about a rejected class when the claim has no current
// class to return to. If a call with an unknown outcome may have applied the
// rejected class, the driver is called with it once more: if the volume has
// that class, the claim gets it too.
func (s *state) decideCancel(o *Options) step {
	tried := s.claim.Status.ModifyVolumeStatus.Status != corev1.PersistentVolumeClaimModifyVolumePending
	unknown := tried && !s.classRejected && outcomeDoubt(s.claim, corev1.PersistentVolumeClaimVolumeModifyingVolume) == outcomeUnknown
	switch {
	case unknown && !s.canModify:
		return cannotModify(o) // It may do so again, and then the outcome can be found out.
	case unknown && s.targetClass != nil:
		return step{action: confirm, class: s.targetClass}
	default:
		return step{action: cancel}
	}
}

// decideResume decides about a modification that may be in progress. No other
// modification starts before the driver has responded.
func (s *state) decideResume(o *Options) step {
	if !s.canModify {
		return cannotModify(o)
	}
	if s.targetClass == nil {
		return step{action: report, reason: kube.ReasonVolumeModifyFailed, message: fmt.Sprintf(
			"VolumeAttributesClass %q is gone, and the volume may already have been modified to it: create it again as it was, so that the modification can finish",
			s.claim.Status.ModifyVolumeStatus.TargetVolumeAttributesClassName)}
	}
	return step{action: resume, class: s.targetClass}
}

// classProblem returns why the desired class cannot be applied, and nil if it
// can.
func (s *state) classProblem(o *Options) *step {
	name := *s.claim.Spec.VolumeAttributesClassName
	if !s.canModify {
		unable := cannotModify(o)
		return &unable
	}
	pending := step{action: waitForClass, reason: kube.ReasonVolumeModifyFailed}
	switch {
	case s.desiredClass == nil:
		pending.message = fmt.Sprintf("VolumeAttributesClass %q of the claim does not exist; the volume is modified when it exists", name)
	case s.desiredClass.DriverName != o.Driver:
		pending.message = fmt.Sprintf("VolumeAttributesClass %q is for driver %s, and the volume belongs to driver %s: choose another class",
			name, s.desiredClass.DriverName, o.Driver)
	default:
		return nil
	}
	return &pending
}

func cannotModify(o *Options) step {
	return step{action: report, reason: kube.ReasonVolumeModifyFailed, message: fmt.Sprintf(
		"the claim has a VolumeAttributesClass, and driver %s cannot modify volumes: it does not announce MODIFY_VOLUME", o.Driver)}
}

// classRetryDelay returns how long to wait before an infeasible class is tried
// again. A class that was created since the rejection is tried at once.
func (s *state) classRetryDelay(delay time.Duration, now time.Time) time.Duration {
	record := s.claim.Status.ModifyVolumeStatus
	if record == nil || record.Status != corev1.PersistentVolumeClaimModifyVolumeInfeasible || record.TargetVolumeAttributesClassName != s.desiredClass.Name {
		return 0
	}
	rejected := condition(s.claim, corev1.PersistentVolumeClaimVolumeModifyVolumeError)
	if rejected != nil && s.desiredClass.CreationTimestamp.After(rejected.LastTransitionTime.Time) {
		return 0
	}
	return remainingDelay(s.claim, corev1.PersistentVolumeClaimVolumeModifyVolumeError, delay, now)
}
