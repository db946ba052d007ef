package resize

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// This file has the changes that are written to claims and volumes. The functions
// do no I/O and modify their argument.

// expansionConditions are the conditions of an expansion. They are removed when
// another expansion starts and when it has finished.
var expansionConditions = []corev1.PersistentVolumeClaimConditionType{
	corev1.PersistentVolumeClaimResizing,
	corev1.PersistentVolumeClaimFileSystemResizePending,
	corev1.PersistentVolumeClaimControllerResizeError,
	corev1.PersistentVolumeClaimNodeResizeError,
}

// onlyOnNode is the reason of the condition Resizing while an expansion is recorded for which
// the driver's controller is not called.
const onlyOnNode = "OnlyOnNode"

// isOnlyOnNode reports whether the recorded expansion is one for which the driver's controller
// is not called.
func isOnlyOnNode(claim *corev1.PersistentVolumeClaim) bool {
	c := condition(claim, corev1.PersistentVolumeClaimResizing)
	return c != nil && c.Reason == onlyOnNode
}

// startExpansion records the target, and whether only the node expands the volume. The start
// time in the Resizing condition is kept over retries.
func startExpansion(claim *corev1.PersistentVolumeClaim, size int64, nodeOnly bool, now time.Time) {
	if claim.Status.AllocatedResources == nil {
		claim.Status.AllocatedResources = corev1.ResourceList{}
	}
	if sizeOf(claim.Status.AllocatedResources) != size {
		claim.Status.AllocatedResources[corev1.ResourceStorage] = quantity(size)
	}
	setExpansionStatus(claim, corev1.PersistentVolumeClaimControllerResizeInProgress)
	since := condition(claim, corev1.PersistentVolumeClaimResizing)
	if since == nil {
		since = newCondition(corev1.PersistentVolumeClaimResizing, now)
	}
	with := *since
	switch {
	case nodeOnly && with.Reason == "":
		with.Reason = onlyOnNode
	case !nodeOnly && with.Reason == onlyOnNode:
		with.Reason = ""
	}
	setConditions(claim, expansionConditions, with)
	delete(claim.Annotations, kube.AnnNodeExpansionNotRequired)
}

// Reasons of the conditions that record when an operation started. They stay until
// the driver reports success, whatever it rejects in the meantime.
const (
	// outcomeUnknown is set when a call is rejected after another one whose
	// outcome is unknown: that earlier call may have succeeded.
	outcomeUnknown = "OutcomeUnknown"
	// outcomeDoubtful is set after a call that failed, but may have done some
	// of its work.
	outcomeDoubtful = "OutcomeDoubtful"
)

// outcomeDoubt returns one of the reasons above if a call may have done its
// work although one was rejected, and "" otherwise.
func outcomeDoubt(claim *corev1.PersistentVolumeClaim, since corev1.PersistentVolumeClaimConditionType) string {
	if c := condition(claim, since); c != nil && (c.Reason == outcomeUnknown || c.Reason == outcomeDoubtful) {
		return c.Reason
	}
	return ""
}

// setOutcomeDoubt records whether the work may have been done. An unknown
// outcome stays unknown.
func setOutcomeDoubt(claim *corev1.PersistentVolumeClaim, since corev1.PersistentVolumeClaimConditionType, f rejection, now time.Time) {
	if f.outcome == "" || outcomeDoubt(claim, since) == outcomeUnknown {
		return
	}
	c := condition(claim, since)
	if c == nil {
		c = newCondition(since, now)
	}
	with := *c
	with.Reason, with.Message = f.outcome, "the driver rejected the request, but may have completed it, or some of it, before"
	setConditions(claim, []corev1.PersistentVolumeClaimConditionType{since}, with)
}

// rejectExpansion records that the driver rejected the expansion.
func rejectExpansion(claim *corev1.PersistentVolumeClaim, f rejection, now time.Time) {
	if f.infeasible {
		setExpansionStatus(claim, corev1.PersistentVolumeClaimControllerResizeInfeasible)
	}
	setConditions(claim, []corev1.PersistentVolumeClaimConditionType{corev1.PersistentVolumeClaimControllerResizeError},
		f.condition(corev1.PersistentVolumeClaimControllerResizeError, now))
	setOutcomeDoubt(claim, corev1.PersistentVolumeClaimResizing, f, now)
}

// allocate counts the volume's size against quotas if that is more than the
// recorded target and an earlier, larger target had an unknown outcome.
func allocate(claim *corev1.PersistentVolumeClaim, size int64) {
	if outcomeDoubt(claim, corev1.PersistentVolumeClaimResizing) != "" && sizeOf(claim.Status.AllocatedResources) < size {
		claim.Status.AllocatedResources = corev1.ResourceList{corev1.ResourceStorage: quantity(size)}
	}
}

// setNodePending records that the node has to expand the filesystem.
func setNodePending(claim *corev1.PersistentVolumeClaim, size int64, now time.Time) {
	allocate(claim, size)
	setExpansionStatus(claim, corev1.PersistentVolumeClaimNodeResizePending)
	pending := newCondition(corev1.PersistentVolumeClaimFileSystemResizePending, now)
	pending.Message = "the volume has its new size; the node expands its filesystem when a pod uses the volume, at the latest when the next pod starts"
	setConditions(claim, expansionConditions, *pending)
}

// finishExpansion records that the claim has what it requested.
func finishExpansion(claim *corev1.PersistentVolumeClaim, size int64) {
	if claim.Status.Capacity == nil {
		claim.Status.Capacity = corev1.ResourceList{}
	}
	claim.Status.Capacity[corev1.ResourceStorage] = quantity(size)
	allocate(claim, size)
	delete(claim.Status.AllocatedResourceStatuses, corev1.ResourceStorage)
	setConditions(claim, expansionConditions)
	metav1.SetMetaDataAnnotation(&claim.ObjectMeta, kube.AnnNodeExpansionNotRequired, "true")
}

func setExpansionStatus(claim *corev1.PersistentVolumeClaim, to corev1.ClaimResourceStatus) {
	if claim.Status.AllocatedResourceStatuses == nil {
		claim.Status.AllocatedResourceStatuses = map[corev1.ResourceName]corev1.ClaimResourceStatus{}
	}
	claim.Status.AllocatedResourceStatuses[corev1.ResourceStorage] = to
}

// modificationConditions are the conditions of a modification.
var modificationConditions = []corev1.PersistentVolumeClaimConditionType{
	corev1.PersistentVolumeClaimVolumeModifyingVolume,
	corev1.PersistentVolumeClaimVolumeModifyVolumeError,
}

// startModification records the class that the volume is modified to.
func startModification(claim *corev1.PersistentVolumeClaim, class string, now time.Time) {
	setModificationStatus(claim, corev1.PersistentVolumeClaimModifyVolumeInProgress, class)
	since := condition(claim, corev1.PersistentVolumeClaimVolumeModifyingVolume)
	if since == nil {
		since = newCondition(corev1.PersistentVolumeClaimVolumeModifyingVolume, now)
	}
	setConditions(claim, modificationConditions, *since)
}

// setClassPending records that the class does not exist.
func setClassPending(claim *corev1.PersistentVolumeClaim, class string) {
	setModificationStatus(claim, corev1.PersistentVolumeClaimModifyVolumePending, class)
	if outcomeDoubt(claim, corev1.PersistentVolumeClaimVolumeModifyingVolume) == "" {
		setConditions(claim, modificationConditions)
		return
	}
	// Keep the record of what an earlier call may have done.
	setConditions(claim, []corev1.PersistentVolumeClaimConditionType{corev1.PersistentVolumeClaimVolumeModifyVolumeError})
}

// rejectModification records that the driver rejected the modification and does
// not continue it.
func rejectModification(claim *corev1.PersistentVolumeClaim, f rejection, now time.Time) {
	if record := claim.Status.ModifyVolumeStatus; f.infeasible && record != nil {
		record.Status = corev1.PersistentVolumeClaimModifyVolumeInfeasible
	}
	setConditions(claim, []corev1.PersistentVolumeClaimConditionType{corev1.PersistentVolumeClaimVolumeModifyVolumeError},
		f.condition(corev1.PersistentVolumeClaimVolumeModifyVolumeError, now))
	setOutcomeDoubt(claim, corev1.PersistentVolumeClaimVolumeModifyingVolume, f, now)
}

// finishModification records that the claim has the class.
func finishModification(claim *corev1.PersistentVolumeClaim, class string) {
	claim.Status.CurrentVolumeAttributesClassName = &class
	cancelModification(claim)
}

// cancelModification removes the record of a modification.
func cancelModification(claim *corev1.PersistentVolumeClaim) {
	claim.Status.ModifyVolumeStatus = nil
	setConditions(claim, modificationConditions)
}

func setModificationStatus(claim *corev1.PersistentVolumeClaim, to corev1.PersistentVolumeClaimModifyVolumeStatus, class string) {
	claim.Status.ModifyVolumeStatus = &corev1.ModifyVolumeStatus{Status: to, TargetVolumeAttributesClassName: class}
}

// A rejection is a call that failed with a final error.
type rejection struct {
	infeasible    bool
	code, message string
	outcome       string // "", or what is unknown nevertheless; see outcomeDoubt
}

func (f rejection) condition(of corev1.PersistentVolumeClaimConditionType, now time.Time) corev1.PersistentVolumeClaimCondition {
	c := newCondition(of, now)
	c.Reason, c.Message = f.code, f.message
	return *c
}

func newCondition(of corev1.PersistentVolumeClaimConditionType, now time.Time) *corev1.PersistentVolumeClaimCondition {
	return &corev1.PersistentVolumeClaimCondition{Type: of, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(now)}
}

// setConditions replaces the conditions of some types.
func setConditions(claim *corev1.PersistentVolumeClaim, of []corev1.PersistentVolumeClaimConditionType, by ...corev1.PersistentVolumeClaimCondition) {
	claim.Status.Conditions = slices.DeleteFunc(claim.Status.Conditions, func(c corev1.PersistentVolumeClaimCondition) bool {
		return slices.Contains(of, c.Type)
	})
	claim.Status.Conditions = append(claim.Status.Conditions, by...)
}

// setVolumeSize writes the volume's new size. While the node still has to
// expand the filesystem it also writes the claim's old size.
func setVolumeSize(volume *corev1.PersistentVolume, size int64, before string) {
	if sizeOf(volume.Spec.Capacity) < size {
		if volume.Spec.Capacity == nil {
			volume.Spec.Capacity = corev1.ResourceList{}
		}
		volume.Spec.Capacity[corev1.ResourceStorage] = quantity(size)
	}
	if _, annotated := volume.Annotations[kube.AnnPreResizeCapacity]; before != "" && !annotated {
		metav1.SetMetaDataAnnotation(&volume.ObjectMeta, kube.AnnPreResizeCapacity, before)
	}
}

func quantity(size int64) resource.Quantity { return *resource.NewQuantity(size, resource.BinarySI) }
