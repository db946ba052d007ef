package restore

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/ephemeral"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/ticket"
)

// checkEphemeralVolumes looks for a volume whose files the Checkpoint has, and for which the
// pod has no place.
func checkEphemeralVolumes(s *state) *problem {
	if s.policy.Match == v1alpha1.MatchCompatible {
		return nil // Its files are left out.
	}
	for _, name := range savedVolumes(s.checkpoint) {
		if name == ephemeral.SharedMemory || isEmptyDir(s.pod, name) {
			continue
		}
		return &problem{reason: v1alpha1.ReasonIncompatible, message: fmt.Sprintf(
			"Checkpoint %s/%s has the files of the emptyDir volume %s, and the pod has no emptyDir volume of that name", s.checkpoint.Namespace, s.checkpoint.Name, name)}
	}
	return nil
}

func isEmptyDir(pod *corev1.Pod, name string) bool {
	return slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == name && v.EmptyDir != nil })
}

// savedVolumes returns the names of the volumes whose files a Checkpoint has.
func savedVolumes(c *v1alpha1.Checkpoint) []string {
	var names []string
	for i := range c.Status.Containers {
		names = append(names, c.Status.Containers[i].Volumes...)
	}
	return names
}

// volumesOf returns what is put back before a container is restored.
func (r *Reconciler) volumesOf(s *state, c *container) []ticket.Volume {
	saved := savedVolumes(s.checkpoint)
	var volumes []ticket.Volume
	for _, name := range kube.EphemeralVolumes(s.pod, c.name) {
		if !slices.Contains(saved, name) {
			continue
		}
		v := ticket.Volume{Name: name, Exclusive: s.isExclusive(name)}
		if name != ephemeral.SharedMemory {
			v.Dir = ephemeral.Dir(r.options.KubeletDir, string(s.pod.UID), name)
		}
		volumes = append(volumes, v)
	}
	return volumes
}

// others returns the containers that may run beside those that are restored. Those that
// initialize the pod have ended then.
func (s *state) others() []*container {
	return filterContainers(s.containers, func(c *container) bool { return !c.target && !initializes(s.pod, c.name) })
}

// sharesIPC reports whether containers that are not restored may have System V objects.
func (s *state) sharesIPC() bool { return len(s.others()) > 0 }

// isExclusive reports whether only containers of the Checkpoint may write to a volume while or
// after they are restored.
func (s *state) isExclusive(volume string) bool { return !s.anyHas(s.others(), volume) }

// isUsed reports whether a container runs that has a volume.
func (s *state) isUsed(volume string) bool {
	running := filterContainers(s.containers, func(c *container) bool { return c.runningID != "" })
	return s.anyHas(running, volume)
}

func (s *state) anyHas(containers []*container, volume string) bool {
	return slices.ContainsFunc(containers, func(c *container) bool { return slices.Contains(kube.EphemeralVolumes(s.pod, c.name), volume) })
}

// initializes reports whether a container ends before the others start.
func initializes(pod *corev1.Pod, name string) bool {
	for i := range pod.Spec.InitContainers {
		if c := &pod.Spec.InitContainers[i]; c.Name == name {
			return c.RestartPolicy == nil || *c.RestartPolicy != corev1.ContainerRestartPolicyAlways
		}
	}
	return false
}

// prepareVolumes removes what an earlier request, or a try that was interrupted, has left of
// volumes. Once a container may have started, they are what it has been started with.
func (s *state) prepareVolumes(missing []*container) error {
	if len(missing) == 0 || len(missing) < len(s.targets()) {
		return nil
	}
	return missing[0].place.RemoveVolumes()
}

// keepVolumes moves the files of volumes from the data of a container to where all containers
// of the pod find them.
func keepVolumes(c *container, record *v1alpha1.ContainerCheckpoint) error {
	for _, name := range record.Volumes {
		if err := c.place.KeepVolume(name); err != nil {
			return err
		}
	}
	return nil
}

// renewVolumes has the files of its volumes put back once more, when a container is restored
// again.
func renewVolumes(c *container, volumes []ticket.Volume) error {
	for _, v := range volumes {
		if err := c.place.RenewVolume(v.Name); err != nil {
			return err
		}
	}
	return nil
}
