package volume

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/kube"
)

// An action is what the controller does next.
type action int

const (
	none          action = iota // nothing is left to do
	poll                        // look again later
	wait                        // report what the volume waits for, and look again later
	fail                        // report that the Checkpoint will never be ready
	recordNames                 // add the finalizer, and record the names of claim and pod
	createClaim                 // from the template
	createPod                   //
	deletePod                   //
	deleteClaim                 //
	recordMount                 // record that the volume is mounted; then the agent goes on
	recordUnmount               // record that the volume is not mounted any more
	forgetData                  // record that there are no data: the claim that had them is gone
	finish                      // record that the pod is gone, or remove the finalizer
)

// A step is a decision. Reason, message and waitingFor are those of wait and fail.
type step struct {
	action          action
	reason, message string
	waitingFor      string
}

// decide has all rules of the controller. It does no I/O, and its test has a row for each
// rule.
func decide(s *state) step {
	switch goalOf(s.checkpoint) {
	case mount:
		next := s.decideMount()
		if next.action == wait && s.lacksAgent() {
			return step{action: poll}
		}
		return next
	case release:
		return s.decideRelease()
	default:
		return step{action: none}
	}
}

// lacksAgent reports whether the Checkpoint says that the node has no agent. That comes
// first: two controllers that report different things would wake each other for ever.
func (s *state) lacksAgent() bool {
	ready := meta.FindStatusCondition(s.checkpoint.Status.Conditions, v1alpha1.ConditionReady)
	return ready != nil && ready.Reason == v1alpha1.ReasonNoAgent
}

func (s *state) decideMount() step {
	switch problem := s.targetProblem(); {
	case problem != nil:
		return *problem
	case !s.namesAreRecorded():
		return step{action: recordNames}
	case s.mountIsRecorded():
		return step{action: none}
	case s.dataAreGone():
		return step{action: forgetData}
	case s.isMounted():
		return step{action: recordMount}
	case s.checkpoint.Status.Volume.PodUID != "":
		return step{action: recordUnmount}
	default:
		return s.decideUnmounted()
	}
}

// namesAreRecorded reports whether the Checkpoint has the names of claim and pod, and the
// finalizer that keeps it until both are gone.
func (s *state) namesAreRecorded() bool {
	c := s.checkpoint
	isKept := !c.DeletionTimestamp.IsZero() || controllerutil.ContainsFinalizer(c, v1alpha1.FinalizerVolume)
	return isKept && c.Status.Volume != nil && c.Status.Volume.PodName != ""
}

// mountIsRecorded reports whether the volume is mounted and the status says so.
func (s *state) mountIsRecorded() bool {
	v := s.checkpoint.Status.Volume
	return s.isMounted() && v.PodUID == s.pod.UID && v.ClaimUID == s.claim.UID && v.VolumeName == s.claim.Spec.VolumeName
}

// decideUnmounted decides about a volume that has to be mounted and is not.
func (s *state) decideUnmounted() step {
	if s.claim == nil && hasTemplate(s.checkpoint) {
		return s.decideNewClaim()
	}
	if problem := s.claimProblem(); problem != nil {
		return *problem
	}
	return s.decidePod()
}

// decideNewClaim decides about a claim that has to be created from the template.
func (s *state) decideNewClaim() step {
	if _, err := kube.Bytes(*s.checkpoint.Status.Storage.PVCTemplate.Resources.Requests.Storage()); err != nil {
		return *s.wait(v1alpha1.ReasonStorageInvalid, "pvcTemplate requests a size that no volume can have: %v; delete the Checkpoint and create one with a smaller size", err)
	}
	return step{action: createClaim}
}

// targetProblem returns that the pod of the containers is gone. The agent would find it
// out, but it does not start before the volume is mounted, which may be never.
func (s *state) targetProblem() *step {
	c := s.checkpoint
	if !awaitsFirstMount(c) || s.target != nil && s.target.UID == c.Status.PodUID {
		return nil
	}
	if s.target == nil {
		return &step{action: fail, waitingFor: v1alpha1.WaitingForUser, reason: v1alpha1.ReasonPodGone,
			message: fmt.Sprintf("pod %s was deleted before the volume of the Checkpoint was mounted", targetKey(c))}
	}
	return &step{action: fail, waitingFor: v1alpha1.WaitingForUser, reason: v1alpha1.ReasonSourcePodReplaced,
		message: fmt.Sprintf("pod %s was replaced before the volume of the Checkpoint was mounted: its UID is %s and was %s; create another Checkpoint for the new one", targetKey(c), s.target.UID, c.Status.PodUID)}
}

// dataAreGone reports whether the claim that had the data of a deleted Checkpoint is gone,
// or goes: no pod can mount a claim that is being deleted.
func (s *state) dataAreGone() bool {
	c := s.checkpoint
	if c.DeletionTimestamp.IsZero() {
		return false
	}
	return s.claim == nil || s.claim.UID != c.Status.Volume.ClaimUID || !s.claim.DeletionTimestamp.IsZero() && !s.isMounted()
}

// claimProblem returns why the claim cannot be used; nil if it can.
func (s *state) claimProblem() *step {
	c := s.checkpoint
	name := c.Namespace + "/" + c.Status.Volume.ClaimName
	switch {
	case s.claim == nil:
		return s.wait(v1alpha1.ReasonStorageInvalid, "PersistentVolumeClaim %s does not exist: create it", name)
	case hasTemplate(c) && !isOurs(c, s.claim):
		return s.wait(v1alpha1.ReasonStorageInvalid, "PersistentVolumeClaim %s was not created for this Checkpoint, whose claim would have the same name: delete it", name)
	case !s.claim.DeletionTimestamp.IsZero():
		return s.wait(v1alpha1.ReasonStorageInvalid, "PersistentVolumeClaim %s is being deleted: create it again when it is gone", name)
	case ptr.Deref(s.claim.Spec.VolumeMode, corev1.PersistentVolumeFilesystem) != corev1.PersistentVolumeFilesystem:
		return s.wait(v1alpha1.ReasonStorageInvalid, "PersistentVolumeClaim %s has volumeMode %s: use one with volumeMode Filesystem", name, *s.claim.Spec.VolumeMode)
	case !isWritable(s.claim):
		return s.wait(v1alpha1.ReasonStorageInvalid, "PersistentVolumeClaim %s has only the access mode ReadOnlyMany: use one that can be written", name)
	case s.claim.Status.Phase == corev1.ClaimLost:
		return s.wait(v1alpha1.ReasonStorageInvalid, "PersistentVolumeClaim %s has lost its PersistentVolume %s: use another one", name, s.claim.Spec.VolumeName)
	}
	return nil
}

func isWritable(claim *corev1.PersistentVolumeClaim) bool {
	return slices.ContainsFunc(claim.Spec.AccessModes, func(m corev1.PersistentVolumeAccessMode) bool { return m != corev1.ReadOnlyMany })
}

// decidePod decides about the pod of a claim that can be used.
func (s *state) decidePod() step {
	c, pod := s.checkpoint, s.pod
	switch {
	case pod == nil:
		return step{action: createPod}
	case !isOurs(c, pod):
		return *s.wait(v1alpha1.ReasonVolumePending, "pod %s/%s was not created for this Checkpoint, whose pod would have the same name: delete it", pod.Namespace, pod.Name)
	case !pod.DeletionTimestamp.IsZero():
		return step{action: poll}
	case pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded || nodeOf(pod) != c.Status.NodeName:
		return step{action: deletePod}
	default:
		return s.decidePendingPod()
	}
}

// patience is how long a pod may be pending, or a claim be deleted, before that is
// reported: it may take a few seconds if all is well.
const patience = 5 * time.Second

// decidePendingPod says why the pod does not run.
func (s *state) decidePendingPod() step {
	name := s.pod.Namespace + "/" + s.pod.Name
	if s.now.Sub(s.pod.CreationTimestamp.Time) < patience {
		return step{action: poll}
	}
	for i := range s.pod.Status.Conditions {
		if at := &s.pod.Status.Conditions[i]; at.Type == corev1.PodScheduled && at.Status == corev1.ConditionFalse {
			return *s.wait(v1alpha1.ReasonVolumePending, "pod %s, which mounts PersistentVolumeClaim %s, cannot be scheduled to node %s: %s%s",
				name, s.claim.Name, s.checkpoint.Status.NodeName, at.Message, s.because())
		}
	}
	for i := range s.pod.Status.ContainerStatuses {
		if at := s.pod.Status.ContainerStatuses[i].State.Waiting; at != nil && at.Message != "" {
			return *s.wait(v1alpha1.ReasonVolumePending, "pod %s, which mounts PersistentVolumeClaim %s, does not start: %s: %s", name, s.claim.Name, at.Reason, at.Message)
		}
	}
	if s.trouble != "" {
		return *s.wait(v1alpha1.ReasonVolumePending, "pod %s on node %s waits for PersistentVolumeClaim %s%s", name, s.checkpoint.Status.NodeName, s.claim.Name, s.because())
	}
	return step{action: poll}
}

func (s *state) because() string {
	if s.trouble == "" {
		return ""
	}
	return ": " + s.trouble
}

// wait is a step for what a user has to change. The condition of a deleted
// Checkpoint has a reason of its own.
func (s *state) wait(reason, format string, args ...any) *step {
	message := fmt.Sprintf(format, args...)
	if !s.checkpoint.DeletionTimestamp.IsZero() {
		reason = v1alpha1.ReasonDeleting
		message += fmt.Sprintf("; the Checkpoint stays until its data are deleted, or goes without them with the annotation %s=true", v1alpha1.AnnAbandonData)
	}
	return &step{action: wait, waitingFor: v1alpha1.WaitingForUser, reason: reason, message: message}
}

func (s *state) decideRelease() step {
	pod, claim := s.podLeft(), s.claimLeft()
	switch {
	case pod != nil && pod.DeletionTimestamp.IsZero():
		return step{action: deletePod}
	case claim != nil && claim.DeletionTimestamp.IsZero():
		return step{action: deleteClaim}
	case pod != nil:
		return step{action: poll}
	case claim != nil:
		return s.decideDeletedClaim()
	default:
		return step{action: finish}
	}
}

// podLeft returns the pod, if it is ours.
func (s *state) podLeft() *corev1.Pod {
	if s.pod == nil || !isOurs(s.checkpoint, s.pod) {
		return nil
	}
	return s.pod
}

// claimLeft returns the claim, if it is ours and has to go.
func (s *state) claimLeft() *corev1.PersistentVolumeClaim {
	if s.claim == nil || !deletesClaim(s.checkpoint) || !isOurs(s.checkpoint, s.claim) {
		return nil
	}
	return s.claim
}

// decideDeletedClaim decides about a claim that is being deleted.
func (s *state) decideDeletedClaim() step {
	switch c := s.checkpoint; {
	case c.DeletionTimestamp.IsZero() || s.now.Sub(s.claim.DeletionTimestamp.Time) < patience:
		return step{action: poll}
	case abandonsData(c):
		return step{action: finish}
	default:
		return *s.wait(v1alpha1.ReasonDeleting, "PersistentVolumeClaim %s/%s is being deleted: if that does not end, a pod still uses it (kubectl describe pvc)", s.claim.Namespace, s.claim.Name)
	}
}
