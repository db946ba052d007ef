package resize

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// An action is what is to be done next about an expansion or a modification.
type action int

const (
	none         action = iota // nothing, or it is somebody else's turn
	report                     // nothing but tell the claim's owner
	retryLater                 // the same once more, but not yet
	start                      // put the target on record, then ask the driver
	resume                     // ask the driver for the target that is on record
	confirm                    // ask for that once more before it is given up: an earlier call may have done it
	cleanUp                    // take the old size off the volume: the node is done
	waitForClass               // put on record that the class is missing
	cancel                     // take what was refused off the record
)

// A step is a decision. Size and class are what it is about, if anything.
type step struct {
	action action
	size   int64 // bytes
	class  *storagev1.VolumeAttributesClass
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
func decideExpansion(s state, o *Options, now time.Time) step {
	requested, capacity := sizeOf(s.claim.Spec.Resources.Requests), sizeOf(s.claim.Status.Capacity)
	if requested <= capacity {
		return s.decideSatisfied(capacity)
	}
	if !s.canExpand() {
		return step{action: report, reason: kube.ReasonVolumeResizeFailed, message: fmt.Sprintf(
			"driver %s cannot expand volumes: it does not announce EXPAND_VOLUME", o.Driver)}
	}
	target := s.targetSize(requested)
	switch {
	case target == 0:
		return step{action: none} // It is the node's turn.
	case s.expansionStatus() == corev1.PersistentVolumeClaimControllerResizeInProgress && !s.hasFailed() && s.allocated() == target:
		return step{action: resume, size: target}
	}
	unused := o.HandleInUseError && s.failedInUse()
	if s.lowersUnknown(target) {
		return step{action: confirm, size: s.allocated(), unused: unused}
	}
	if wait := s.retryDelay(target, o.RetryMax, now); wait > 0 {
		return step{action: retryLater, after: wait}
	}
	return step{action: start, size: target, unused: unused}
}

// decideSatisfied is about a claim that has what it requests.
func (s *state) decideSatisfied(capacity int64) step {
	if _, annotated := s.volume.Annotations[kube.AnnPreResizeCapacity]; annotated && capacity >= s.volumeSize() {
		return step{action: cleanUp}
	}
	return step{action: none}
}

// targetSize is the size that is to be asked for, 0 while it is the node's turn.
func (s *state) targetSize(requested int64) int64 {
	allocated := s.allocated()
	if allocated == 0 {
		return requested
	}
	switch s.expansionStatus() {
	case corev1.PersistentVolumeClaimNodeResizePending, corev1.PersistentVolumeClaimNodeResizeInProgress:
		if s.volumeSize() >= allocated {
			return 0
		}
		return allocated
	case corev1.PersistentVolumeClaimNodeResizeInfeasible:
		if s.isNodeOnly() {
			return requested // Nothing has grown yet.
		}
		return allocated // The driver has grown the volume: the node has to follow.
	case corev1.PersistentVolumeClaimControllerResizeInProgress:
		if !s.hasFailed() {
			return allocated // It may be under way.
		}
	default:
	}
	if s.volumeSize() >= requested {
		return max(requested, allocated) // It was granted once, and volumes never shrink.
	}
	return requested
}

// lowersUnknown tells whether a target is less than what an unanswered call may have
// made of the volume. A refusal that came later says nothing about that call: if it
// has grown the volume, asking for the same again finds that out, and otherwise it
// is refused once more.
func (s *state) lowersUnknown(target int64) bool {
	return target < s.allocated() && !s.sizeRejected && outcomeDoubt(s.claim, corev1.PersistentVolumeClaimResizing) == outcomeUnknown
}

// retryDelay is how long to wait before what has been infeasible is asked for again,
// if nothing has changed since.
func (s *state) retryDelay(target int64, pause time.Duration, now time.Time) time.Duration {
	if target != s.allocated() {
		return 0
	}
	switch s.expansionStatus() {
	case corev1.PersistentVolumeClaimControllerResizeInfeasible:
		return remainingDelay(s.claim, corev1.PersistentVolumeClaimControllerResizeError, pause, now)
	case corev1.PersistentVolumeClaimNodeResizeInfeasible:
		return remainingDelay(s.claim, corev1.PersistentVolumeClaimNodeResizeError, pause, now)
	default:
		return 0
	}
}

// remainingDelay is what is left of a pause that began with a condition.
func remainingDelay(claim *corev1.PersistentVolumeClaim, of corev1.PersistentVolumeClaimConditionType, pause time.Duration, now time.Time) time.Duration {
	since := condition(claim, of)
	if since == nil || since.LastTransitionTime.IsZero() {
		return 0
	}
	return max(0, since.LastTransitionTime.Add(pause).Sub(now))
}
