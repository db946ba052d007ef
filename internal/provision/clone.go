package provision

import (
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// ClaimSource is a claim that is to be cloned, with its volume; each nil if it does
// not exist.
type ClaimSource struct {
	Claim  *corev1.PersistentVolumeClaim
	Volume *corev1.PersistentVolume
}

// check tells whether the claim can be cloned and returns the driver's handle
// of its volume.
func (c *ClaimSource) check(s state, o *Options) (handle string, err error) {
	switch {
	case c.Claim == nil:
		return "", errors.New("does not exist")
	case c.Claim.DeletionTimestamp != nil && !IsHeldFor(c.Claim, s.claim):
		return "", errors.New("is being deleted")
	case c.Claim.Status.Phase != corev1.ClaimBound:
		return "", errors.New("is not bound to a volume yet")
	case className(c.Claim) == "" || className(s.claim) == "":
		return "", errors.New("both it and the clone must have a StorageClass")
	}
	want, has := s.claim.Spec.Resources.Requests.Storage(), c.Claim.Spec.Resources.Requests.Storage()
	if want.Cmp(*has) < 0 {
		return "", fmt.Errorf("the claim asks for %s and its source for %s: ask for at least as much", want, has)
	}
	if err := c.checkVolume(s, o); err != nil {
		return "", err
	}
	return c.Volume.Spec.CSI.VolumeHandle, nil
}

// IsHeldFor tells whether a claim that is being deleted stays until a clone of it
// has its volume: the guard keeps it for those that were made before the deletion.
func IsHeldFor(from, clone *corev1.PersistentVolumeClaim) bool {
	return slices.Contains(from.Finalizers, kube.CloneSourceFinalizer) && !clone.CreationTimestamp.After(from.DeletionTimestamp.Time)
}

// checkVolume tells whether the source's volume is one that our driver can clone.
func (c *ClaimSource) checkVolume(s state, o *Options) error {
	if c.Volume == nil {
		return fmt.Errorf("its volume %s does not exist", c.Claim.Spec.VolumeName)
	}
	spec := c.Volume.Spec
	switch {
	case spec.CSI == nil || spec.CSI.Driver != o.Driver:
		return fmt.Errorf("its volume %s is not one of driver %s", c.Volume.Name, o.Driver)
	case spec.ClaimRef == nil || spec.ClaimRef.UID != c.Claim.UID || c.Volume.Status.Phase != corev1.VolumeBound:
		return fmt.Errorf("its volume %s is not bound to it", c.Volume.Name)
	case volumeMode(spec.VolumeMode) != volumeMode(s.claim.Spec.VolumeMode):
		return fmt.Errorf("its volume has mode %s and the claim has mode %s", volumeMode(spec.VolumeMode), volumeMode(s.claim.Spec.VolumeMode))
	}
	return nil
}
