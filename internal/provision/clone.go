package provision

import (
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// cloned is a claim that is to be cloned, with its volume; each nil if it does
// not exist.
type cloned struct {
	claim  *corev1.PersistentVolumeClaim
	volume *corev1.PersistentVolume
}

// check tells whether the claim can be cloned and returns the driver's handle
// of its volume.
func (c *cloned) check(s seen, o *Options) (handle string, err error) {
	switch {
	case c.claim == nil:
		return "", errors.New("does not exist")
	case c.claim.DeletionTimestamp != nil && !waitsForClone(c.claim, s.claim):
		return "", errors.New("is being deleted")
	case c.claim.Status.Phase != corev1.ClaimBound:
		return "", errors.New("is not bound to a volume yet")
	case className(c.claim) == "" || className(s.claim) == "":
		return "", errors.New("both it and the clone must have a StorageClass")
	}
	want, has := s.claim.Spec.Resources.Requests.Storage(), c.claim.Spec.Resources.Requests.Storage()
	if want.Cmp(*has) < 0 {
		return "", fmt.Errorf("the claim asks for %s and its source for %s: ask for at least as much", want, has)
	}
	if err := c.volumeFits(s, o); err != nil {
		return "", err
	}
	return c.volume.Spec.CSI.VolumeHandle, nil
}

// waitsForClone tells whether a claim that is being deleted stays until a clone of it
// has its volume: the guard keeps it for those that were made before the deletion.
func waitsForClone(from, clone *corev1.PersistentVolumeClaim) bool {
	return slices.Contains(from.Finalizers, kube.CloneSourceFinalizer) && !clone.CreationTimestamp.After(from.DeletionTimestamp.Time)
}

// volumeFits tells whether the source's volume is one that our driver can clone.
func (c *cloned) volumeFits(s seen, o *Options) error {
	if c.volume == nil {
		return fmt.Errorf("its volume %s does not exist", c.claim.Spec.VolumeName)
	}
	spec := c.volume.Spec
	switch {
	case spec.CSI == nil || spec.CSI.Driver != o.Driver:
		return fmt.Errorf("its volume %s is not one of driver %s", c.volume.Name, o.Driver)
	case spec.ClaimRef == nil || spec.ClaimRef.UID != c.claim.UID || c.volume.Status.Phase != corev1.VolumeBound:
		return fmt.Errorf("its volume %s is not bound to it", c.volume.Name)
	case modeOf(spec.VolumeMode) != modeOf(s.claim.Spec.VolumeMode):
		return fmt.Errorf("its volume has mode %s and the claim has mode %s", modeOf(spec.VolumeMode), modeOf(s.claim.Spec.VolumeMode))
	}
	return nil
}
