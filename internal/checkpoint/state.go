package checkpoint

import (
	"cmp"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
)

// state is what the controller knows about one Checkpoint.
type state struct {
	checkpoint *v1alpha1.Checkpoint
	// policy is the one that the Checkpoint names; nil if it names none or it does not exist.
	policy *v1alpha1.CheckpointPolicy
	// pod is the target's; nil if it does not exist.
	pod *corev1.Pod
	// workload is what the pod belongs to.
	workload *v1alpha1.Workload
	// granted is whether the Checkpoint may name a pod of that namespace.
	granted bool
	// agent is that of the pod's node or, once the Checkpoint is assigned, of the assigned
	// node; nil if the node has none.
	agent *v1alpha1.CheckpointNode
	// nodeExists is whether the assigned node exists. It is known only if that has no agent.
	nodeExists bool
	// otherAgent is the name of another node with an agent; "" if there is none.
	otherAgent string
}

// targetNamespace returns the namespace of the target pod.
func targetNamespace(c *v1alpha1.Checkpoint) string {
	return cmp.Or(c.Spec.Target.Namespace, c.Namespace)
}

func targetKey(c *v1alpha1.Checkpoint) client.ObjectKey {
	return client.ObjectKey{Namespace: targetNamespace(c), Name: c.Spec.Target.PodName}
}

func (s *state) isAssigned() bool { return s.checkpoint.Status.NodeName != "" }

// isComplete reports whether the Checkpoint is ready or has failed for good.
func (s *state) isComplete() bool {
	conditions := s.checkpoint.Status.Conditions
	return meta.IsStatusConditionTrue(conditions, v1alpha1.ConditionReady) || meta.IsStatusConditionTrue(conditions, v1alpha1.ConditionFailed)
}

func (s *state) isDeleting() bool { return !s.checkpoint.DeletionTimestamp.IsZero() }

func (s *state) hasFinalizer() bool {
	return controllerutil.ContainsFinalizer(s.checkpoint, v1alpha1.Finalizer)
}

// abandonsData reports whether the user lets the Checkpoint go without its data.
func (s *state) abandonsData() bool {
	return s.checkpoint.Annotations[v1alpha1.AnnAbandonData] == "true"
}

// storage returns where the data go, and whether the policy says it.
func (s *state) storage() (storage *v1alpha1.CheckpointStorage, fromPolicy bool) {
	if s.checkpoint.Spec.Storage != nil {
		return s.checkpoint.Spec.Storage, false
	}
	if s.policy != nil && s.policy.Spec.Storage != nil {
		return s.policy.Spec.Storage, true
	}
	return nil, false
}

// encryption returns how the data are encrypted, nil if they are not, and whether the
// policy says it.
func (s *state) encryption() (encryption *v1alpha1.Encryption, fromPolicy bool) {
	if s.checkpoint.Spec.Encryption != nil {
		return s.checkpoint.Spec.Encryption, false
	}
	if s.policy != nil && s.policy.Spec.Encryption != nil {
		return s.policy.Spec.Encryption, true
	}
	return nil, false
}

// ephemeralVolumes returns what is saved of them, nil if neither the Checkpoint nor its policy
// says it.
func (s *state) ephemeralVolumes() *v1alpha1.EphemeralVolumes {
	if s.checkpoint.Spec.EphemeralVolumes != nil || s.policy == nil {
		return s.checkpoint.Spec.EphemeralVolumes
	}
	return s.policy.Spec.EphemeralVolumes
}
