package resize

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// An action is what the controller does next about an expansion or a
// modification.
type action int

const (
	none         action = iota // nothing, or another component acts next
	report                     // only emit an event
	retryLater                 // decide again after a delay
	start                      // record the target, then call the driver
	resume                     // call the driver with the recorded target
	confirm                    // call the driver with the recorded target once more before another target replaces it: an earlier call may have succeeded
	cleanUp                    // remove the old size from the volume: the node is done
	waitForClass               // record that the class is missing
	cancel                     // remove the record of a class that the driver rejected
)

// A step is a decision. Size and class are its target, if it has one.
type step struct {
	action action
	size   int64 // bytes
	class  *storagev1.VolumeAttributesClass
	// unused is whether the volume must not be in use by a pod.
	unused bool
	// after is the delay of retryLater.
	after time.Duration
	// reason and message are the event of report and waitForClass.
	reason, message string
}

// decideExpansion has all rules about the size of a volume. It does no I/O, and
// its test has a row for each rule. The rules for an expansion in progress are
// those of KEP-1790, "Recovering from volume expansion failure".
func decideExpansion(s state, o *Options, now time.Time) step {
	requested, capacity := sizeOf(s.claim.Spec.Resources.Requests), sizeOf(s.claim.Status.Capacity)
	if s.claim.Spec.Resources.Requests.Storage().Cmp(*s.claim.Status.Capacity.Storage()) <= 0 {
		return s.decideSatisfied(capacity)
	}
	target := s.targetSize(requested)
	if problem := s.expansionProblem(target, o); problem != "" {
		return step{action: report, reason: kube.ReasonVolumeResizeFailed, message: problem}
	}
	switch {
	case target == 0:
		return step{action: none} // The node acts next.
	case s.expansionStatus() == corev1.PersistentVolumeClaimControllerResizeInProgress && !s.hasFailed() && s.allocated() == target:
		return step{action: resume, size: target}
	}
	unused := o.HandleInUseError && s.failedInUse()
	if s.lowersUncertainTarget(target) {
		return step{action: confirm, size: s.allocated(), unused: unused}
	}
	if wait := s.retryDelay(target, o.RetryMax, now); wait > 0 {
		return step{action: retryLater, after: wait}
	}
	return step{action: start, size: target, unused: unused}
}

// expansionProblem returns why the driver cannot be called with a target, and "" if it can. A
// size that CSI cannot express is no problem while an earlier target has to be reached first.
func (s *state) expansionProblem(target int64, o *Options) string {
	if !s.canExpand() && !s.mayBeExpanding() {
		return fmt.Sprintf("driver %s cannot expand volumes: it does not announce EXPAND_VOLUME", o.Driver)
	}
	requested := *s.claim.Spec.Resources.Requests.Storage()
	if _, err := kube.Bytes(requested); err != nil && target == kube.BytesAtMost(requested) {
		return fmt.Sprintf("the claim requests a size that no volume can have: %v; request a smaller size", err)
	}
	return ""
}

// decideSatisfied decides about a claim that has what it requests.
func (s *state) decideSatisfied(capacity int64) step {
	if _, annotated := s.volume.Annotations[kube.AnnPreResizeCapacity]; annotated && capacity >= s.volumeSize() {
		return step{action: cleanUp}
	}
	return step{action: none}
}

// targetSize returns the size to request from the driver, and 0 while the node
// expands the filesystem.
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
			return requested // The volume has not been expanded yet.
		}
		return allocated // The driver has expanded the volume, so the node has to follow.
	case corev1.PersistentVolumeClaimControllerResizeInProgress:
		if !s.hasFailed() {
			return allocated // The driver may still be working on it.
		}
	default:
	}
	if s.volumeSize() >= requested {
		return max(requested, allocated) // The volume has this size already, and volumes never shrink.
	}
	return requested
}

// lowersUncertainTarget reports whether a target is less than the size that a call with
// an unknown outcome may have given the volume. A later rejection says nothing
// about that call. If the call expanded the volume, repeating it shows that;
// otherwise the driver rejects it again.
func (s *state) lowersUncertainTarget(target int64) bool {
	return target < s.allocated() && !s.sizeRejected && outcomeDoubt(s.claim, corev1.PersistentVolumeClaimResizing) == outcomeUnknown
}

// retryDelay returns how long to wait before an infeasible size is requested
// again, if nothing else has changed.
func (s *state) retryDelay(target int64, delay time.Duration, now time.Time) time.Duration {
	if target != s.allocated() {
		return 0
	}
	switch s.expansionStatus() {
	case corev1.PersistentVolumeClaimControllerResizeInfeasible:
		return remainingDelay(s.claim, corev1.PersistentVolumeClaimControllerResizeError, delay, now)
	case corev1.PersistentVolumeClaimNodeResizeInfeasible:
		return remainingDelay(s.claim, corev1.PersistentVolumeClaimNodeResizeError, delay, now)
	default:
		return 0
	}
}

// remainingDelay returns what is left of a delay that started with a condition.
func remainingDelay(claim *corev1.PersistentVolumeClaim, of corev1.PersistentVolumeClaimConditionType, delay time.Duration, now time.Time) time.Duration {
	since := condition(claim, of)
	if since == nil || since.LastTransitionTime.IsZero() {
		return 0
	}
	return max(0, since.LastTransitionTime.Add(delay).Sub(now))
}
