package volume

import (
	"cmp"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
)

// state is what the controller knows about one Checkpoint.
type state struct {
	checkpoint *v1alpha1.Checkpoint
	// claim and pod are those that the status names; nil if they do not exist.
	claim *corev1.PersistentVolumeClaim
	pod   *corev1.Pod
	// target is the pod of the containers; nil if it does not exist. It is known only if
	// awaitsFirstMount.
	target *corev1.Pod
	// trouble is what the newest warning about the claim or the pod says; "" without one.
	trouble string
	now     time.Time
}

// A goal is what becomes of the volume of a Checkpoint.
type goal int

const (
	idle    goal = iota // the volume stays as it is
	mount               // the volume is mounted on the assigned node
	release             // the pod is deleted, and the claim if nobody needs it
)

// goalOf returns the goal for a Checkpoint, which depends on nothing else.
func goalOf(c *v1alpha1.Checkpoint) goal {
	switch {
	case c.Status.Storage == nil || c.Status.Storage.Backend != v1alpha1.BackendPVC:
		return idle
	case !c.DeletionTimestamp.IsZero():
		return goalOfDeleted(c)
	case isComplete(c):
		return goalOfComplete(c)
	case c.Status.NodeName != "":
		return mount
	default:
		return idle
	}
}

func goalOfComplete(c *v1alpha1.Checkpoint) goal {
	if v := c.Status.Volume; v != nil && (v.PodName != "" || deletesClaim(c) && v.ClaimName != "") {
		return release
	}
	return idle
}

func goalOfDeleted(c *v1alpha1.Checkpoint) goal {
	switch {
	case !controllerutil.ContainsFinalizer(c, v1alpha1.FinalizerVolume):
		return idle
	case !controllerutil.ContainsFinalizer(c, v1alpha1.Finalizer):
		return release
	case hasTemplate(c) || !hasData(c):
		return idle // The agent removes its finalizer without the volume.
	default:
		return mount
	}
}

func isComplete(c *v1alpha1.Checkpoint) bool {
	return meta.IsStatusConditionTrue(c.Status.Conditions, v1alpha1.ConditionReady) || hasFailed(c)
}

func hasFailed(c *v1alpha1.Checkpoint) bool {
	return meta.IsStatusConditionTrue(c.Status.Conditions, v1alpha1.ConditionFailed)
}

// hasTemplate reports whether the claim is created for the Checkpoint.
func hasTemplate(c *v1alpha1.Checkpoint) bool { return c.Status.Storage.PVCTemplate != nil }

// hasData reports whether the claim may have data of the Checkpoint: the agent records a
// location first.
func hasData(c *v1alpha1.Checkpoint) bool {
	return slices.ContainsFunc(c.Status.Containers, func(at v1alpha1.ContainerCheckpoint) bool { return at.Location != "" })
}

// deletesClaim reports whether nobody needs the claim any more. Both conditions are for
// good.
func deletesClaim(c *v1alpha1.Checkpoint) bool {
	return hasTemplate(c) && (hasFailed(c) || !c.DeletionTimestamp.IsZero())
}

// abandonsData reports whether the user lets the Checkpoint go although its data may stay.
func abandonsData(c *v1alpha1.Checkpoint) bool {
	return c.Annotations[v1alpha1.AnnAbandonData] == "true"
}

// awaitsFirstMount reports whether nothing was frozen yet: the agent does not start before
// the volume is mounted.
func awaitsFirstMount(c *v1alpha1.Checkpoint) bool {
	return c.DeletionTimestamp.IsZero() && c.Status.Attempts == 0 && (c.Status.Volume == nil || c.Status.Volume.PodUID == "")
}

// isOurs reports whether an object was created for the Checkpoint. One of the same name
// may be somebody else's.
func isOurs(c *v1alpha1.Checkpoint, o client.Object) bool { return metav1.IsControlledBy(o, c) }

// isMounted reports whether the pod runs on the assigned node: then the kubelet has mounted
// the volume.
func (s *state) isMounted() bool {
	return s.pod != nil && isOurs(s.checkpoint, s.pod) && s.pod.DeletionTimestamp.IsZero() &&
		s.pod.Status.Phase == corev1.PodRunning && nodeOf(s.pod) == s.checkpoint.Status.NodeName &&
		s.claim != nil && s.claim.Spec.VolumeName != ""
}

// targetKey is the key of the pod of the containers.
func targetKey(c *v1alpha1.Checkpoint) client.ObjectKey {
	return client.ObjectKey{Namespace: cmp.Or(c.Spec.Target.Namespace, c.Namespace), Name: c.Spec.Target.PodName}
}
