package checkpoint

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
)

// An action is what the controller does next.
type action int

const (
	none     action = iota // nothing, or the node's agent acts next
	wait                   // report what the Checkpoint waits for, and look again later
	fail                   // report that the Checkpoint will never be ready
	assign                 // record what the Checkpoint is about; then the agent acts
	reassign               // have another node delete the data
	release                // remove the finalizer
)

// A step is a decision.
type step struct {
	action action
	// reason and message are those of the condition Ready.
	reason, message string
	// waitingFor is who acts next, for the status.
	waitingFor string
	// containers are the names of those to be checkpointed.
	containers []string
	node       string
}

// waitForUser is a step for what only a user can change.
func waitForUser(reason, format string, args ...any) step {
	return step{action: wait, waitingFor: v1alpha1.WaitingForUser, reason: reason, message: fmt.Sprintf(format, args...)}
}

func failed(reason, format string, args ...any) step {
	return step{action: fail, waitingFor: v1alpha1.WaitingForUser, reason: reason, message: fmt.Sprintf(format, args...)}
}

// decide has all rules of the controller. It does no I/O, and its test has a row for each
// rule.
func decide(s *state) step {
	switch {
	case s.isDeleting():
		return s.decideDeletion()
	case s.isComplete():
		return step{action: none}
	case s.isAssigned():
		return s.decideAssigned()
	default:
		return s.decideNew()
	}
}

// decideAssigned decides about a Checkpoint that a node's agent makes.
func (s *state) decideAssigned() step {
	name := s.checkpoint.Status.NodeName
	switch {
	case s.agent != nil:
		return step{action: none}
	case s.nodeExists:
		return waitForUser(v1alpha1.ReasonNoAgent, "node %s has no checkpoint agent any more: see why its DaemonSet checkpoint-agent has no pod there", name)
	default:
		return failed(v1alpha1.ReasonNodeLost, "node %s, which was to make the checkpoint, does not exist any more", name)
	}
}

// decideNew decides about a Checkpoint that is not assigned. What may still appear is
// waited for; what cannot change fails.
func (s *state) decideNew() step {
	c := s.checkpoint
	storage, _ := s.storage()
	switch {
	case c.Spec.PolicyRef != "" && s.policy == nil:
		return waitForUser(v1alpha1.ReasonPolicyMissing, "CheckpointPolicy %q does not exist: create it, or create another Checkpoint that names an existing one", c.Spec.PolicyRef)
	case storage == nil:
		return waitForUser(v1alpha1.ReasonStorageInvalid, "CheckpointPolicy %q has no storage, and the Checkpoint has none either: set spec.storage of the policy", c.Spec.PolicyRef)
	case !s.granted:
		return waitForUser(v1alpha1.ReasonReferenceMissing,
			"no ReferenceGrant in namespace %s lets Checkpoints of namespace %s name its pods: create one with from {group: %s, kind: Checkpoint, namespace: %s} and to {group: \"\", kind: Pod}, or create the Checkpoint in namespace %s",
			targetNamespace(c), c.Namespace, v1alpha1.GroupVersion.Group, c.Namespace, targetNamespace(c))
	case s.pod == nil:
		return waitForUser(v1alpha1.ReasonPodGone, "pod %s does not exist", targetKey(c))
	}
	return s.decidePod()
}

// decidePod decides about a Checkpoint whose pod exists.
func (s *state) decidePod() step {
	key, phase := targetKey(s.checkpoint), s.pod.Status.Phase
	if !s.pod.DeletionTimestamp.IsZero() || phase == corev1.PodSucceeded || phase == corev1.PodFailed {
		return failed(v1alpha1.ReasonContainerNotActive, "pod %s has ended or is being deleted: only running containers can be checkpointed", key)
	}
	names, problem := s.targetContainers()
	if problem != nil {
		return *problem
	}
	for _, name := range names {
		if !isRunning(s.pod, name) {
			return waitForUser(v1alpha1.ReasonContainerNotActive, "container %s of pod %s is not running: it is checkpointed when it is", name, key)
		}
	}
	return s.decideAgent(names)
}

// decideAgent decides about a Checkpoint whose containers run.
func (s *state) decideAgent(containers []string) step {
	if s.agent == nil {
		return waitForUser(v1alpha1.ReasonNoAgent,
			"node %s, on which the pod runs, has no checkpoint agent: apply deploy/checkpoint-operator.yaml, or see why its DaemonSet checkpoint-agent has no pod there", s.pod.Spec.NodeName)
	}
	if ready := meta.FindStatusCondition(s.agent.Status.Conditions, v1alpha1.ConditionReady); ready == nil || ready.Status != metav1.ConditionTrue {
		reason, message := v1alpha1.ReasonNoAgent, "its agent has not reported yet"
		if ready != nil {
			reason, message = ready.Reason, ready.Message
		}
		return waitForUser(reason, "node %s cannot make checkpoints: %s", s.agent.Name, message)
	}
	return step{action: assign, containers: containers, node: s.pod.Spec.NodeName}
}

// targetContainers returns the names of the containers to be checkpointed. Init containers
// without restartPolicy Always end by themselves, and ephemeral ones belong to a debugging
// session: neither is part of "*".
func (s *state) targetContainers() ([]string, *step) {
	all := longRunning(s.pod)
	switch name := s.checkpoint.Spec.Target.ContainerName; {
	case name == v1alpha1.AllContainers:
		return all, nil
	case name == "":
		return []string{s.pod.Spec.Containers[0].Name}, nil
	case slices.Contains(all, name):
		return []string{name}, nil
	default:
		problem := failed(v1alpha1.ReasonContainerUnknown, "pod %s has no container %s: it has %s", targetKey(s.checkpoint), name, strings.Join(all, ", "))
		return nil, &problem
	}
}

func longRunning(pod *corev1.Pod) []string {
	var all []string
	for i := range pod.Spec.Containers {
		all = append(all, pod.Spec.Containers[i].Name)
	}
	for i := range pod.Spec.InitContainers {
		if always := pod.Spec.InitContainers[i].RestartPolicy; always != nil && *always == corev1.ContainerRestartPolicyAlways {
			all = append(all, pod.Spec.InitContainers[i].Name)
		}
	}
	return all
}

func isRunning(pod *corev1.Pod, container string) bool {
	for _, status := range slices.Concat(pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses) {
		if status.Name == container {
			return status.State.Running != nil
		}
	}
	return false
}

// decideDeletion decides about a deleted Checkpoint. The agent of its node deletes the
// data and removes the finalizer.
func (s *state) decideDeletion() step {
	switch {
	case !s.hasFinalizer():
		return step{action: none}
	case !s.isAssigned() || s.abandonsData():
		return step{action: release}
	case s.agent != nil:
		return step{action: none}
	default:
		return s.decideDeletionWithoutNode()
	}
}

func (s *state) decideDeletionWithoutNode() step {
	status := &s.checkpoint.Status
	switch {
	case !s.nodeExists && status.Storage != nil && status.Storage.PVCTemplate != nil: // The data go with the claim.
		return step{action: release}
	case s.nodeExists:
		return waitForUser(v1alpha1.ReasonNoAgent,
			"node %s has no checkpoint agent to delete the data: see why its DaemonSet checkpoint-agent has no pod there, or let the Checkpoint go without its data with the annotation %s=true",
			status.NodeName, v1alpha1.AnnAbandonData)
	case status.Storage != nil && status.Storage.Backend == v1alpha1.BackendLocal:
		return waitForUser(v1alpha1.ReasonNodeLost,
			"the data are on node %s, which does not exist any more: if they are lost, let the Checkpoint go with the annotation %s=true", status.NodeName, v1alpha1.AnnAbandonData)
	case s.otherAgent != "":
		return step{action: reassign, node: s.otherAgent, waitingFor: v1alpha1.WaitingForNode}
	default:
		return waitForUser(v1alpha1.ReasonNoAgent,
			"node %s does not exist any more, and no other node has a checkpoint agent to delete the data: apply deploy/checkpoint-operator.yaml, or let the Checkpoint go without its data with the annotation %s=true",
			status.NodeName, v1alpha1.AnnAbandonData)
	}
}
