package volume

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
)

// A restoreState is what the controller knows about the mount of a volume for a restore.
type restoreState struct {
	mount *v1alpha1.RestoreMount
	// restored is the pod that is restored; nil if it does not exist.
	restored *corev1.Pod
	// state has the claim, and the pod that mounts it on that node, as if the Checkpoint were
	// made there.
	*state
}

// forNode returns the Checkpoint as if the pod that mounts its volume for a restore were its
// own.
func forNode(c *v1alpha1.Checkpoint, m *v1alpha1.RestoreMount) *v1alpha1.Checkpoint {
	there := c.DeepCopy()
	there.Status.NodeName = m.NodeName
	there.Status.Volume.PodName, there.Status.Volume.PodUID = restorePodName(c, m), m.MountedBy
	return there
}

// restorePodName is the name of the pod that mounts a volume for a restore: there may be
// several at a time, on several nodes.
func restorePodName(c *v1alpha1.Checkpoint, m *v1alpha1.RestoreMount) string {
	return fmt.Sprintf("%s-%s", objectName(c), m.PodUID)
}

// decideRestore has all rules about a mount for a restore. It does no I/O.
func decideRestore(s *restoreState) step {
	switch {
	case !s.isWanted():
		return s.decideUnwanted()
	case s.isMounted() && s.mount.MountedBy == s.pod.UID:
		return step{action: poll} // until the restore has ended
	case s.isMounted():
		return step{action: recordMount}
	case s.mount.MountedBy != "":
		return step{action: recordUnmount}
	case s.claim == nil || s.claim.UID != s.checkpoint.Status.Volume.ClaimUID:
		return *s.wait(v1alpha1.ReasonStorageInvalid, "PersistentVolumeClaim %s/%s, which had the data, does not exist any more", s.checkpoint.Namespace, s.checkpoint.Status.Volume.ClaimName)
	}
	if problem := s.claimProblem(); problem != nil {
		return *problem
	}
	return s.decidePod()
}

// isWanted reports whether the restore that needs the mount has not ended: the pod is the one
// that has asked, still asks, and has no outcome.
func (s *restoreState) isWanted() bool {
	pod := s.restored
	if !s.checkpoint.DeletionTimestamp.IsZero() || pod == nil || pod.UID != s.mount.PodUID || pod.Spec.NodeName != s.mount.NodeName {
		return false
	}
	isOver := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
	return !isOver && pod.Annotations[v1alpha1.AnnotationRestoreFrom] == s.mount.Request &&
		pod.Annotations[v1alpha1.AnnotationObservedRestoreFrom] != s.mount.Request
}

func (s *restoreState) decideUnwanted() step {
	switch pod := s.podLeft(); {
	case pod != nil && pod.DeletionTimestamp.IsZero():
		return step{action: deletePod}
	case pod != nil:
		return step{action: poll}
	default:
		return step{action: finish}
	}
}

// record writes into the status what has become of a mount.
func (s *restoreState) record(c *v1alpha1.Checkpoint, next step) {
	i := slices.IndexFunc(c.Status.RestoreMounts, func(m v1alpha1.RestoreMount) bool { return m.PodUID == s.mount.PodUID })
	if i < 0 {
		return
	}
	switch m := &c.Status.RestoreMounts[i]; next.action {
	case recordMount:
		m.MountedBy, m.Message = s.pod.UID, ""
	case recordUnmount:
		m.MountedBy = ""
	case finish:
		c.Status.RestoreMounts = slices.Delete(c.Status.RestoreMounts, i, i+1)
	default: // wait
		m.Message = next.message
	}
}

// restoredKey is the key of the pod that is restored.
func restoredKey(m *v1alpha1.RestoreMount) client.ObjectKey {
	return client.ObjectKey{Namespace: m.PodNamespace, Name: m.PodName}
}

// since returns when the newest part of what is waited for has begun.
func (s *restoreState) since() time.Time {
	if s.pod != nil {
		return s.pod.CreationTimestamp.Time
	}
	return s.now
}
