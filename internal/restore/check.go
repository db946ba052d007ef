package restore

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/runtime/oci"
)

// check returns why the pod cannot be restored from the Checkpoint, as far as that can be told
// before its data are fetched and before anything is stopped.
func (r *Reconciler) check(ctx context.Context, s *state) (*problem, error) {
	if p := checkNode(s, r.options.Environment(), r.options.Node); p != nil {
		return p, nil
	}
	if p := cmp.Or(checkContainers(s), checkEphemeralVolumes(s)); p != nil {
		return p, nil
	}
	for _, c := range s.targets() {
		if !s.runsAsBefore(c.name) {
			continue
		}
		if p := r.checkWrapper(ctx, s, c); p != nil {
			return p, nil
		}
	}
	if p := r.checkHandlers(ctx, s); p != nil {
		return p, nil
	}
	return r.checkVolume(ctx, s)
}

// checkNode compares the node with the one of the Checkpoint.
func checkNode(s *state, here *v1alpha1.Environment, node string) *problem {
	c := s.checkpoint
	if s := c.Status.Storage; s != nil && s.Backend == v1alpha1.BackendLocal && c.Status.SourceNode != node {
		return &problem{reason: v1alpha1.ReasonDataElsewhere, message: fmt.Sprintf(
			"the data of Checkpoint %s/%s are on node %s only (backend local), and the pod is on %s: use the backend s3 or pvc, or have the pod scheduled there",
			c.Namespace, c.Name, c.Status.SourceNode, node)}
	}
	there := c.Status.Environment
	if here == nil {
		return &problem{reason: v1alpha1.ReasonNoAgent, temporary: true, message: "the agent does not know yet what the node can do"}
	}
	if there == nil {
		return nil
	}
	if text := differences(there, here, "node "+node, s.isRelaxed()); text != "" {
		return &problem{reason: v1alpha1.ReasonIncompatible, message: text}
	}
	return nil
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
		if p := checkImage(s.pod, of); p != nil && !s.isRelaxed() {
			return p
		}
		if s.runsAsBefore(of.Name) && !isRestarted(s.pod, spec) {
			return &problem{reason: v1alpha1.ReasonRestartForbidden, message: fmt.Sprintf(
				"container %s runs and would not be started again: the restartPolicy of the pod is Never; create a pod with the annotation instead", of.Name)}
		}
	}
	return nil
}

// runsAsBefore reports whether a container runs that has to be stopped: one whose ticket is
// claimed may be the restored one.
func (s *state) runsAsBefore(name string) bool {
	return slices.ContainsFunc(s.containers, func(c *container) bool { return c.name == name && c.runningID != "" && c.claimed == nil })
}

// isRestarted reports whether the kubelet starts a container again that was killed.
func isRestarted(pod *corev1.Pod, spec *corev1.Container) bool {
	if spec.RestartPolicy != nil {
		return *spec.RestartPolicy != corev1.ContainerRestartPolicyNever
	}
	return pod.Spec.RestartPolicy != corev1.RestartPolicyNever
}

// checkImage compares the digests of images, if both are known: a container that waits for its
// restore has no image yet, unless the pod names it by its digest. The wrapper compares the
// names.
func checkImage(pod *corev1.Pod, of *v1alpha1.ContainerCheckpoint) *problem {
	image, id := specOf(pod, of.Name).Image, ""
	if status := statusOf(pod, of.Name); status != nil {
		id = status.ImageID
	}
	then, now := digestOf(of.ImageDigest), cmp.Or(digestOf(id), digestOf(image))
	if then == now || then.digest == "" || now.digest == "" || then.ofManifest != now.ofManifest {
		return nil
	}
	return &problem{reason: v1alpha1.ReasonIncompatible, message: fmt.Sprintf(
		"the image of container %s differs: it was %s (%s), and is %s (%s)", of.Name, of.Image, then.digest, image, now.digest)}
}

// An imageDigest is that of an image. CRI runtimes name one that was pulled by the digest of
// its manifest, and another one by that of its configuration: they cannot be compared.
type imageDigest struct {
	digest     string
	ofManifest bool
}

// digestOf returns the digest at the end of a name such as docker.io/library/x@sha256:9f86…;
// it is zero if there is none.
func digestOf(image string) imageDigest {
	at := strings.LastIndex(image, "sha256:")
	if at < 0 {
		return imageDigest{}
	}
	return imageDigest{image[at:], strings.HasSuffix(image[:at], "@")}
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

// checkWrapper returns why a container that is stopped would not be restored.
func (r *Reconciler) checkWrapper(ctx context.Context, s *state, c *container) *problem {
	bundle, err := r.node.Bundle(c.runningID)
	if err != nil {
		return &problem{reason: v1alpha1.ReasonNoWrapper, temporary: true, message: fmt.Sprintf("looking at the OCI runtime of container %s: %v", c.name, err)}
	}
	return wrapperProblem(c.name, bundle, s.pod, r.options.Handlers(ctx), r.options.Node)
}

// wrapperProblem returns why a running container is not started again by holdfast-runtime;
// nil if it is.
func wrapperProblem(name string, bundle *oci.Bundle, pod *corev1.Pod, handlers *Handlers, node string) *problem {
	isInstalled := handlers != nil && handlers.problemOf(pod, node) == ""
	text := fmt.Sprintf("container %s was started by %s, which cannot restore", name, cmp.Or(bundle.Runtime, "runc"))
	switch remedy := ": run holdfast node install on node " + node; {
	case bundle.Wrapped, isInstalled && !bundle.OfPod:
		return nil
	case isInstalled:
		text += ", and so are all containers of this pod: have the pod created anew"
	case bundle.OfPod:
		text += ", and so are all containers of this pod" + remedy + ", and have the pod created anew"
	default:
		text += remedy
	}
	return &problem{reason: v1alpha1.ReasonNoWrapper, message: text}
}
