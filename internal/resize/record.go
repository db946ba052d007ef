package resize

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// This file is what is written into claims and volumes. The functions do no
// I/O and change what they are given.

// expansionConditions are about an expansion: they go when another one begins,
// and when it is done.
var expansionConditions = []corev1.PersistentVolumeClaimConditionType{
	corev1.PersistentVolumeClaimResizing,
	corev1.PersistentVolumeClaimFileSystemResizePending,
	corev1.PersistentVolumeClaimControllerResizeError,
	corev1.PersistentVolumeClaimNodeResizeError,
}

// startExpansion puts the target on record. Since when the claim is being
// resized stays on record over retries.
func startExpansion(claim *corev1.PersistentVolumeClaim, size int64, now time.Time) {
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
	setConditions(claim, expansionConditions, *since)
	delete(claim.Annotations, kube.AnnNodeExpansionNotRequired)
}

// Reasons of the conditions that say since when something is going on. They stay
// until the driver says that it is done, whatever it refuses meanwhile.
const (
	// outcomeUnknown is after a call that was not answered, and one that was refused
	// after it.
	outcomeUnknown = "OutcomeUnknown"
	// outcomeDoubtful is after a call that the driver has given up on the way.
	outcomeDoubtful = "OutcomeDoubtful"
)

// outcomeDoubt is whether a call may have done its work although one was refused: empty,
// or one of the reasons above.
func outcomeDoubt(claim *corev1.PersistentVolumeClaim, since corev1.PersistentVolumeClaimConditionType) string {
	if c := condition(claim, since); c != nil && (c.Reason == outcomeUnknown || c.Reason == outcomeDoubtful) {
		return c.Reason
	}
	return ""
}

// setOutcomeDoubt puts on record how sure it is that nothing was done. What is known to be
// unknown stays so.
func setOutcomeDoubt(claim *corev1.PersistentVolumeClaim, since corev1.PersistentVolumeClaimConditionType, f rejection, now time.Time) {
	if f.outcome == "" || outcomeDoubt(claim, since) == outcomeUnknown {
		return
	}
	c := condition(claim, since)
	if c == nil {
		c = newCondition(since, now)
	}
	with := *c
	with.Reason, with.Message = f.outcome, "the driver has refused it, and may have done it, or some of it, before"
	setConditions(claim, []corev1.PersistentVolumeClaimConditionType{since}, with)
}

// rejectExpansion puts on record that the driver has refused it.
func rejectExpansion(claim *corev1.PersistentVolumeClaim, f rejection, now time.Time) {
	if f.infeasible {
		setExpansionStatus(claim, corev1.PersistentVolumeClaimControllerResizeInfeasible)
	}
	setConditions(claim, []corev1.PersistentVolumeClaimConditionType{corev1.PersistentVolumeClaimControllerResizeError},
		f.condition(corev1.PersistentVolumeClaimControllerResizeError, now))
	setOutcomeDoubt(claim, corev1.PersistentVolumeClaimResizing, f, now)
}

// allocate counts what the volume has got against quotas, if it is more than the
// target on record: of a larger target it was not known whether it was met.
func allocate(claim *corev1.PersistentVolumeClaim, size int64) {
	if outcomeDoubt(claim, corev1.PersistentVolumeClaimResizing) != "" && sizeOf(claim.Status.AllocatedResources) < size {
		claim.Status.AllocatedResources = corev1.ResourceList{corev1.ResourceStorage: quantity(size)}
	}
}

// setNodePending puts on record that the rest is up to the node.
func setNodePending(claim *corev1.PersistentVolumeClaim, size int64, now time.Time) {
	allocate(claim, size)
	setExpansionStatus(claim, corev1.PersistentVolumeClaimNodeResizePending)
	pending := newCondition(corev1.PersistentVolumeClaimFileSystemResizePending, now)
	pending.Message = "the volume has its new size; its filesystem is expanded on the node where a pod uses it, at the latest when the next one starts"
	setConditions(claim, expansionConditions, *pending)
}

// finishExpansion puts on record that the claim has what it asked for.
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

// modificationConditions are about a modification.
var modificationConditions = []corev1.PersistentVolumeClaimConditionType{
	corev1.PersistentVolumeClaimVolumeModifyingVolume,
	corev1.PersistentVolumeClaimVolumeModifyVolumeError,
}

// startModification puts the class on record that the volume is changed to.
func startModification(claim *corev1.PersistentVolumeClaim, class string, now time.Time) {
	setModificationStatus(claim, corev1.PersistentVolumeClaimModifyVolumeInProgress, class)
	since := condition(claim, corev1.PersistentVolumeClaimVolumeModifyingVolume)
	if since == nil {
		since = newCondition(corev1.PersistentVolumeClaimVolumeModifyingVolume, now)
	}
	setConditions(claim, modificationConditions, *since)
}

// setClassPending puts on record that the class is not there.
func setClassPending(claim *corev1.PersistentVolumeClaim, class string) {
	setModificationStatus(claim, corev1.PersistentVolumeClaimModifyVolumePending, class)
	if outcomeDoubt(claim, corev1.PersistentVolumeClaimVolumeModifyingVolume) == "" {
		setConditions(claim, modificationConditions)
		return
	}
	// What may have been done before stays on record.
	setConditions(claim, []corev1.PersistentVolumeClaimConditionType{corev1.PersistentVolumeClaimVolumeModifyVolumeError})
}

// rejectModification puts on record that the driver has refused it, and surely does
// not go on with it.
func rejectModification(claim *corev1.PersistentVolumeClaim, f rejection, now time.Time) {
	if record := claim.Status.ModifyVolumeStatus; f.infeasible && record != nil {
		record.Status = corev1.PersistentVolumeClaimModifyVolumeInfeasible
	}
	setConditions(claim, []corev1.PersistentVolumeClaimConditionType{corev1.PersistentVolumeClaimVolumeModifyVolumeError},
		f.condition(corev1.PersistentVolumeClaimVolumeModifyVolumeError, now))
	setOutcomeDoubt(claim, corev1.PersistentVolumeClaimVolumeModifyingVolume, f, now)
}

// finishModification puts on record that the claim has the class.
func finishModification(claim *corev1.PersistentVolumeClaim, class string) {
	claim.Status.CurrentVolumeAttributesClassName = &class
	cancelModification(claim)
}

// cancelModification takes what was refused off the record.
func cancelModification(claim *corev1.PersistentVolumeClaim) {
	claim.Status.ModifyVolumeStatus = nil
	setConditions(claim, modificationConditions)
}

func setModificationStatus(claim *corev1.PersistentVolumeClaim, to corev1.PersistentVolumeClaimModifyVolumeStatus, class string) {
	claim.Status.ModifyVolumeStatus = &corev1.ModifyVolumeStatus{Status: to, TargetVolumeAttributesClassName: class}
}

// A rejection is a call of which the driver has said that it has failed for good.
type rejection struct {
	infeasible    bool
	code, message string
	outcome       string // what is not known about it all the same; see doubt
}

func (f rejection) condition(of corev1.PersistentVolumeClaimConditionType, now time.Time) corev1.PersistentVolumeClaimCondition {
	c := newCondition(of, now)
	c.Reason, c.Message = f.code, f.message
	return *c
}

func newCondition(of corev1.PersistentVolumeClaimConditionType, now time.Time) *corev1.PersistentVolumeClaimCondition {
	return &corev1.PersistentVolumeClaimCondition{Type: of, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(now)}
}

// setConditions replaces the conditions of some types by others.
func setConditions(claim *corev1.PersistentVolumeClaim, of []corev1.PersistentVolumeClaimConditionType, by ...corev1.PersistentVolumeClaimCondition) {
	claim.Status.Conditions = slices.DeleteFunc(claim.Status.Conditions, func(c corev1.PersistentVolumeClaimCondition) bool {
		return slices.Contains(of, c.Type)
	})
	claim.Status.Conditions = append(claim.Status.Conditions, by...)
}

// setVolumeSize writes how large the volume is now, and, while the node has its
// half to do, how large it was for the claim before.
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
