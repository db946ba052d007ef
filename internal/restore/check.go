package restore

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/runtime/oci"
)

// check returns why the pod cannot be restored from the Checkpoint, as far as that can be told
// before its data are fetched and before anything is stopped.
func (r *Reconciler) check(s *state) *problem {
	if p := checkNode(s.checkpoint, r.options.Environment(), r.options.Node); p != nil {
		return p
	}
	if p := checkContainers(s); p != nil {
		return p
	}
	for _, c := range s.targets() {
		if c.runningID == "" || c.claimed != nil {
			continue
		}
		if p := r.checkWrapper(c); p != nil {
			return p
		}
	}
	return nil
}

// checkNode compares the node with the one of the Checkpoint.
func checkNode(c *v1alpha1.Checkpoint, here *v1alpha1.Environment, node string) *problem {
	if s := c.Status.Storage; s != nil && s.Backend == v1alpha1.BackendLocal && c.Status.SourceNode != node {
		return &problem{reason: v1alpha1.ReasonDataElsewhere, message: fmt.Sprintf(
			"the data of Checkpoint %s/%s are on node %s only (backend local), and the pod is on %s: use the backend s3 or pvc, or have the pod scheduled there",
			c.Namespace, c.Name, c.Status.SourceNode, node)}
	}
	switch there := c.Status.Environment; {
	case here == nil:
		return &problem{reason: v1alpha1.ReasonNoAgent, temporary: true, message: "the agent does not know yet what the node can do"}
	case there == nil:
		return nil
	default:
		return compare(there, here, node)
	}
}

// compare compares what a Checkpoint was made with and what a node has.
func compare(there, here *v1alpha1.Environment, node string) *problem {
	for _, fact := range []struct{ what, then, now string }{
		{"architecture", there.Architecture, here.Architecture},
		{"version of control groups", there.Cgroup, here.Cgroup},
	} {
		if fact.then != "" && fact.now != "" && fact.then != fact.now {
			return &problem{reason: v1alpha1.ReasonIncompatible, message: fmt.Sprintf(
				"the %s differs: the Checkpoint was made with %s, and node %s has %s", fact.what, fact.then, node, fact.now)}
		}
	}
	if isOlder(here.CRIU, there.CRIU) {
		return &problem{reason: v1alpha1.ReasonIncompatible, message: fmt.Sprintf(
			"the Checkpoint was made with CRIU %s, and node %s has %s, which is older: update it", there.CRIU, node, here.CRIU)}
	}
	return nil
}

// isOlder compares versions such as 4.2.1 by their major and minor numbers.
func isOlder(version, than string) bool {
	a, b := numbers(version), numbers(than)
	if a == nil || b == nil {
		return false // One of them is not known.
	}
	return a[0] < b[0] || a[0] == b[0] && a[1] < b[1]
}

func numbers(version string) []int {
	fields := strings.SplitN(version, ".", 3)
	if len(fields) < 2 {
		return nil
	}
	major, err := strconv.Atoi(fields[0])
	if err != nil {
		return nil
	}
	minor, err := strconv.Atoi(fields[1])
	if err != nil {
		return nil
	}
	return []int{major, minor}
}

// checkContainers compares the containers of the pod with those of the Checkpoint.
func checkContainers(s *state) *problem {
	for i := range s.checkpoint.Status.Containers {
		of := &s.checkpoint.Status.Containers[i]
		spec := specOf(s.pod, of.Name)
		if spec == nil {
			return &problem{reason: v1alpha1.ReasonIncompatible, message: fmt.Sprintf(
				"the pod has no container %s, which Checkpoint %s/%s has", of.Name, s.checkpoint.Namespace, s.checkpoint.Name)}
		}
		if p := checkImage(s.pod, of); p != nil {
			return p
		}
		if runningID(s.pod, of.Name) != "" && !isRestarted(s.pod, spec) {
			return &problem{reason: v1alpha1.ReasonRestartForbidden, message: fmt.Sprintf(
				"container %s runs and would not be started again: the restartPolicy of the pod is Never; create a pod with the annotation instead", of.Name)}
		}
	}
	return nil
}

// isRestarted reports whether the kubelet starts a container again that was killed.
func isRestarted(pod *corev1.Pod, spec *corev1.Container) bool {
	if spec.RestartPolicy != nil {
		return *spec.RestartPolicy != corev1.ContainerRestartPolicyNever
	}
	return pod.Spec.RestartPolicy != corev1.RestartPolicyNever
}

// checkImage compares the digests of images, if both are known. The wrapper compares what the
// container is started with.
func checkImage(pod *corev1.Pod, of *v1alpha1.ContainerCheckpoint) *problem {
	status := statusOf(pod, of.Name)
	if status == nil || of.ImageDigest == "" {
		return nil
	}
	now := digestOf(status.ImageID)
	if then := digestOf(of.ImageDigest); now != "" && then != "" && now != then {
		return &problem{reason: v1alpha1.ReasonIncompatible, message: fmt.Sprintf(
			"the image of container %s differs: it was %s (%s), and is %s (%s)", of.Name, of.Image, then, status.Image, now)}
	}
	return nil
}

// digestOf returns the digest at the end of a name such as docker.io/library/x@sha256:9f86…;
// "" if there is none.
func digestOf(image string) string {
	at := strings.LastIndex(image, "sha256:")
	if at < 0 {
		return ""
	}
	return image[at:]
}

func specOf(pod *corev1.Pod, name string) *corev1.Container {
	for _, all := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range all {
			if all[i].Name == name {
				return &all[i]
			}
		}
	}
	return nil
}

// checkWrapper returns why a container that is stopped would not be restored: the OCI runtime
// of the node is not ours.
func (r *Reconciler) checkWrapper(c *container) *problem {
	bundle, err := r.node.Bundle(c.runningID)
	if errors.Is(err, oci.ErrNotFound) {
		return &problem{reason: v1alpha1.ReasonNoWrapper, temporary: true, message: fmt.Sprintf("looking at the OCI runtime of container %s: %v", c.name, err)}
	}
	if err != nil {
		return &problem{reason: v1alpha1.ReasonNoWrapper, temporary: true, message: err.Error()}
	}
	if !bundle.Wrapped {
		return &problem{reason: v1alpha1.ReasonNoWrapper, message: fmt.Sprintf(
			"container %s was started by %s, which cannot restore: run holdfast node install on node %s, and start the pod anew", c.name, orDefault(bundle.Runtime, "runc"), r.options.Node)}
	}
	return nil
}

func orDefault(value, standard string) string {
	if value == "" {
		return standard
	}
	return value
}
