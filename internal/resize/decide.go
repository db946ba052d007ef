package resize

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// A kind is what is to be done next about an expansion or a modification.
type kind int

const (
	rest   kind = iota // nothing, or it is somebody else's turn
	say                // nothing but tell the claim's owner
	later              // the same once more, but not yet
	begin              // put the target on record, then ask the driver
	resume             // ask the driver for the target that is on record
	settle             // ask for that once more before it is given up: an earlier call may have done it
	tidy               // take the old size off the volume: the node is done
	await              // put on record that the class is missing
	cancel             // take what was refused off the record
)

// A step is a decision. Size and class are what it is about, if anything.
type step struct {
	kind  kind
	size  int64 // bytes
	class *storagev1.VolumeAttributesClass
	// unused is whether the volume must not be in use by a pod.
	unused bool
	// after is how long to wait, for later.
	after time.Duration
	// reason and message are what to tell, for say and await.
	reason, message string
}

// decideExpansion holds every rule about how large a volume is made, and when.
// It does no I/O; each rule is a row of its test. The rules about what is under
// way are those of KEP-1790, "Recovering from volume expansion failure".
func decideExpansion(s seen, o *Options, now time.Time) step {
	requested, has := sizeOf(s.claim.Spec.Resources.Requests), sizeOf(s.claim.Status.Capacity)
	if requested <= has {
		return s.met(has)
	}
	if !s.expands() {
		return step{kind: say, reason: kube.ReasonVolumeResizeFailed, message: fmt.Sprintf(
			"driver %s cannot expand volumes: it does not announce EXPAND_VOLUME", o.Driver)}
	}
	target := s.target(requested)
	switch {
	case target == 0:
		return step{kind: rest} // It is the node's turn.
	case s.expansion() == corev1.PersistentVolumeClaimControllerResizeInProgress && !s.refused() && s.allocated() == target:
		return step{kind: resume, size: target}
	}
	unused := o.LookForUsers && s.inUse()
	if s.lowers(target) {
		return step{kind: settle, size: s.allocated(), unused: unused}
	}
	if wait := s.pause(target, o.RetryMax, now); wait > 0 {
		return step{kind: later, after: wait}
	}
	return step{kind: begin, size: target, unused: unused}
}

// met is about a claim that has what it requests.
func (s *seen) met(has int64) step {
	if _, noted := s.volume.Annotations[kube.AnnPreResizeCapacity]; noted && has >= s.size() {
		return step{kind: tidy}
	}
	return step{kind: rest}
}

// target is the size that is to be asked for, 0 while it is the node's turn.
func (s *seen) target(requested int64) int64 {
	allocated := s.allocated()
	if allocated == 0 {
		return requested
	}
	switch s.expansion() {
	case corev1.PersistentVolumeClaimNodeResizePending, corev1.PersistentVolumeClaimNodeResizeInProgress:
		if s.size() >= allocated {
			return 0
		}
		return allocated
	case corev1.PersistentVolumeClaimNodeResizeInfeasible:
		if s.nodeOnly() {
			return requested // Nothing has grown yet.
		}
		return allocated // The driver has grown the volume: the node has to follow.
	case corev1.PersistentVolumeClaimControllerResizeInProgress:
		if !s.refused() {
			return allocated // It may be under way.
		}
	default:
	}
	if s.size() >= requested {
		return max(requested, allocated) // It was granted once, and volumes never shrink.
	}
	return requested
}

// lowers tells whether a target is less than what an unanswered call may have
// made of the volume. A refusal that came later says nothing about that call: if it
// has grown the volume, asking for the same again finds that out, and otherwise it
// is refused once more.
func (s *seen) lowers(target int64) bool {
	return target < s.allocated() && !s.sizeRefused && doubt(s.claim, corev1.PersistentVolumeClaimResizing) == outcomeUnknown
}

// pause is how long to wait before what has been infeasible is asked for again,
// if nothing has changed since.
func (s *seen) pause(target int64, pause time.Duration, now time.Time) time.Duration {
	if target != s.allocated() {
		return 0
	}
	switch s.expansion() {
	case corev1.PersistentVolumeClaimControllerResizeInfeasible:
		return remaining(s.claim, corev1.PersistentVolumeClaimControllerResizeError, pause, now)
	case corev1.PersistentVolumeClaimNodeResizeInfeasible:
		return remaining(s.claim, corev1.PersistentVolumeClaimNodeResizeError, pause, now)
	default:
		return 0
	}
}

// remaining is what is left of a pause that began with a condition.
func remaining(claim *corev1.PersistentVolumeClaim, of corev1.PersistentVolumeClaimConditionType, pause time.Duration, now time.Time) time.Duration {
	since := condition(claim, of)
	if since == nil || since.LastTransitionTime.IsZero() {
		return 0
	}
	return max(0, since.LastTransitionTime.Add(pause).Sub(now))
}
