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
func decideModification(s seen, o *Options, now time.Time) step {
	wanted, has := ptr.Deref(s.claim.Spec.VolumeAttributesClassName, ""), ptr.Deref(s.claim.Status.CurrentVolumeAttributesClassName, "")
	record := s.claim.Status.ModifyVolumeStatus
	switch {
	case !o.Modify:
		return step{kind: rest}
	case s.modifying():
		return s.goOn(o)
	case wanted == has && record == nil:
		return step{kind: rest}
	case wanted == has && !s.half():
		return s.giveUp()
	case wanted == "":
		return step{kind: rest} // The API allows nobody to give up a class that was applied.
	}
	if problem := s.problem(o); problem != nil {
		return *problem
	}
	if wait := s.breather(o.RetryMax, now); wait > 0 {
		return step{kind: later, after: wait}
	}
	return step{kind: begin, class: s.wanted}
}

// half tells whether the volume has a class to go back to and some of what was
// refused may have been done: only what was infeasible from the first call on
// surely was not.
func (s *seen) half() bool {
	return ptr.Deref(s.claim.Status.CurrentVolumeAttributesClassName, "") != "" &&
		(s.claim.Status.ModifyVolumeStatus.Status == corev1.PersistentVolumeClaimModifyVolumeInProgress ||
			doubt(s.claim, corev1.PersistentVolumeClaimVolumeModifyingVolume) != "")
}

// giveUp is about a class that was refused, with none to go back to. If an
// unanswered call may have applied it, it is asked for once more: the volume may
// have it, and then the claim has it too.
func (s *seen) giveUp() step {
	tried := s.claim.Status.ModifyVolumeStatus.Status != corev1.PersistentVolumeClaimModifyVolumePending
	if tried && s.modifies && s.begun != nil && !s.classRefused &&
		doubt(s.claim, corev1.PersistentVolumeClaimVolumeModifyingVolume) == outcomeUnknown {
		return step{kind: settle, class: s.begun}
	}
	return step{kind: cancel}
}

// goOn is about a modification that may be under way: nothing else is asked for
// before it has been answered.
func (s *seen) goOn(o *Options) step {
	if !s.modifies {
		return unable(o)
	}
	if s.begun == nil {
		return step{kind: say, reason: kube.ReasonVolumeModifyFailed, message: fmt.Sprintf(
			"VolumeAttributesClass %q is gone, and the volume may already have been changed to it: create it again as it was, so that the change can be brought to an end",
			s.claim.Status.ModifyVolumeStatus.TargetVolumeAttributesClassName)}
	}
	return step{kind: resume, class: s.begun}
}

// problem is what stands in the way of the class that the claim wants.
func (s *seen) problem(o *Options) *step {
	name := *s.claim.Spec.VolumeAttributesClassName
	if !s.modifies {
		unable := unable(o)
		return &unable
	}
	pending := step{kind: await, reason: kube.ReasonVolumeModifyFailed}
	switch {
	case s.wanted == nil:
		pending.message = fmt.Sprintf("VolumeAttributesClass %q of the claim does not exist; the volume is modified when it does", name)
	case s.wanted.DriverName != o.Driver:
		pending.message = fmt.Sprintf("VolumeAttributesClass %q is for driver %s and the volume is of driver %s: choose another class",
			name, s.wanted.DriverName, o.Driver)
	default:
		return nil
	}
	return &pending
}

func unable(o *Options) step {
	return step{kind: say, reason: kube.ReasonVolumeModifyFailed, message: fmt.Sprintf(
		"the claim has a VolumeAttributesClass and driver %s cannot modify volumes: it does not announce MODIFY_VOLUME", o.Driver)}
}

// breather is how long to wait before a class that was infeasible is tried
// again. One that was made since is another.
func (s *seen) breather(pause time.Duration, now time.Time) time.Duration {
	record := s.claim.Status.ModifyVolumeStatus
	if record == nil || record.Status != corev1.PersistentVolumeClaimModifyVolumeInfeasible || record.TargetVolumeAttributesClassName != s.wanted.Name {
		return 0
	}
	refused := condition(s.claim, corev1.PersistentVolumeClaimVolumeModifyVolumeError)
	if refused != nil && s.wanted.CreationTimestamp.After(refused.LastTransitionTime.Time) {
		return 0
	}
	return remaining(s.claim, corev1.PersistentVolumeClaimVolumeModifyVolumeError, pause, now)
}
