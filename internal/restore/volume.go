package restore

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/kube"
)

// usesVolume reports whether the data are in a volume: it has to be mounted on this node
// before they can be fetched.
func (s *state) usesVolume() bool {
	storage := s.checkpoint.Status.Storage
	return storage != nil && storage.Backend == v1alpha1.BackendPVC
}

// mount returns the mount of the volume for this request; nil if nobody has asked for it.
func (s *state) mount() *v1alpha1.RestoreMount {
	for i := range s.checkpoint.Status.RestoreMounts {
		if m := &s.checkpoint.Status.RestoreMounts[i]; m.PodUID == s.pod.UID && m.Request == s.request && m.NodeName == s.pod.Spec.NodeName {
			return m
		}
	}
	return nil
}

// decideStage decides about data that have to be fetched.
func (s *state) decideStage(containers []*container) step {
	if !s.usesVolume() {
		return step{action: stage, containers: containers}
	}
	switch m := s.mount(); {
	case m == nil && len(s.checkpoint.Status.RestoreMounts) >= v1alpha1.MaxRestoreMounts:
		return step{action: postpone, problem: s.awaitsVolume(fmt.Sprintf("%d pods are being restored from it: the next one is when one of them has ended", v1alpha1.MaxRestoreMounts))}
	case m == nil:
		return step{action: askForVolume}
	case m.MountedBy != "":
		return step{action: stage, containers: containers}
	case m.Message != "":
		return step{action: postpone, problem: s.awaitsVolume(m.Message)}
	default:
		return step{action: postpone, problem: s.awaitsVolume("the checkpoint-operator mounts it on node " + m.NodeName)}
	}
}

func (s *state) awaitsVolume(why string) *problem {
	return &problem{reason: v1alpha1.ReasonVolumePending, temporary: true, message: fmt.Sprintf(
		"waiting for the volume of Checkpoint %s/%s: %s", s.checkpoint.Namespace, s.checkpoint.Name, why)}
}

// source returns the Checkpoint as the store of its data needs it: with the volume that is
// mounted for this restore.
func (s *state) source() *v1alpha1.Checkpoint {
	m := s.mount()
	if !s.usesVolume() || m == nil || s.checkpoint.Status.Volume == nil {
		return s.checkpoint
	}
	c := s.checkpoint.DeepCopy()
	c.Status.Volume.PodUID = m.MountedBy
	return c
}

// askForVolume asks the checkpoint-operator to mount the volume on this node. It unmounts it
// when the outcome of the request is on record.
func (r *Reconciler) askForVolume(ctx context.Context, s *state) error {
	return kube.ChangeStatus(ctx, r.client, s.checkpoint, func(c *v1alpha1.Checkpoint) {
		all := &c.Status.RestoreMounts
		*all = slices.DeleteFunc(*all, func(m v1alpha1.RestoreMount) bool { return m.PodUID == s.pod.UID })
		*all = append(*all, v1alpha1.RestoreMount{
			PodUID: s.pod.UID, PodNamespace: s.pod.Namespace, PodName: s.pod.Name, NodeName: s.pod.Spec.NodeName, Request: s.request,
		})
	})
}

// checkVolume returns why the volume with the data cannot be used on this node, whoever mounts
// it. Volumes of some drivers are in one place.
func (r *Reconciler) checkVolume(ctx context.Context, s *state) (*problem, error) {
	c := s.checkpoint
	if !s.usesVolume() || !slices.ContainsFunc(s.targets(), func(c *container) bool { return c.needsData(r.now()) }) {
		return nil, nil
	}
	name := ""
	if c.Status.Volume != nil {
		name = c.Status.Volume.VolumeName
	}
	var volume *corev1.PersistentVolume
	if err := kube.GetIfExists(ctx, r.apiReader, client.ObjectKey{Name: name}, &volume); err != nil {
		return nil, err
	}
	if volume == nil {
		return &problem{reason: v1alpha1.ReasonStorageInvalid, message: fmt.Sprintf(
			"PersistentVolume %q, which had the data of Checkpoint %s/%s, does not exist any more", name, c.Namespace, c.Name)}, nil
	}
	node := &corev1.Node{}
	if err := r.apiReader.Get(ctx, client.ObjectKey{Name: s.pod.Spec.NodeName}, node); err != nil {
		return nil, fmt.Errorf("reading node %s: %w", s.pod.Spec.NodeName, err)
	}
	fits, err := canBeUsedOn(volume, node)
	if err != nil || fits {
		return nil, err
	}
	return &problem{reason: v1alpha1.ReasonDataElsewhere, message: fmt.Sprintf(
		"the data of Checkpoint %s/%s are in PersistentVolume %s, which cannot be used on node %s (its nodeAffinity): have the pod scheduled to a node where it can, such as %s, or use the backend s3",
		c.Namespace, c.Name, name, node.Name, c.Status.SourceNode)}, nil
}

// canBeUsedOn reports whether the node affinity of a volume permits a node.
func canBeUsedOn(volume *corev1.PersistentVolume, node *corev1.Node) (bool, error) {
	affinity := volume.Spec.NodeAffinity
	if affinity == nil || affinity.Required == nil {
		return true, nil
	}
	selector, err := nodeaffinity.NewNodeSelector(affinity.Required)
	if err != nil {
		return false, fmt.Errorf("reading the node affinity of PersistentVolume %s: %w", volume.Name, err)
	}
	return selector.Match(node), nil
}
