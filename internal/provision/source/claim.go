package source

import (
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// Claim is a claim to clone, with its volume; each is nil if it does not exist.
type Claim struct {
	Claim  *corev1.PersistentVolumeClaim
	Volume *corev1.PersistentVolume
}

// check returns the driver's handle of the claim's volume, or an error if the claim
// cannot be cloned.
func (c *Claim) check(clone *corev1.PersistentVolumeClaim, rules Rules) (handle string, err error) {
	switch {
	case c.Claim == nil:
		return "", errors.New("does not exist")
	case c.Claim.DeletionTimestamp != nil && !IsHeldFor(c.Claim, clone):
		return "", errors.New("is being deleted")
	case c.Claim.Status.Phase != corev1.ClaimBound:
		return "", errors.New("is not bound to a volume yet")
	case kube.ClaimClass(c.Claim) == "" || kube.ClaimClass(clone) == "":
		return "", errors.New("both it and the clone must have a StorageClass")
	}
	want, has := clone.Spec.Resources.Requests.Storage(), c.Claim.Spec.Resources.Requests.Storage()
	if want.Cmp(*has) < 0 {
		return "", fmt.Errorf("the claim asks for %s and its source for %s: ask for at least as much", want, has)
	}
	if err := c.checkVolume(clone, rules); err != nil {
		return "", err
	}
	return c.Volume.Spec.CSI.VolumeHandle, nil
}

// IsHeldFor reports whether a claim that is being deleted stays until its clone has a
// volume: source protection keeps it for clones that were created before the deletion.
func IsHeldFor(from, clone *corev1.PersistentVolumeClaim) bool {
	return slices.Contains(from.Finalizers, kube.CloneSourceFinalizer) && !clone.CreationTimestamp.After(from.DeletionTimestamp.Time)
}

// checkVolume checks that our driver can clone the claim's volume.
func (c *Claim) checkVolume(clone *corev1.PersistentVolumeClaim, rules Rules) error {
	if c.Volume == nil {
		return fmt.Errorf("its volume %s does not exist", c.Claim.Spec.VolumeName)
	}
	spec := c.Volume.Spec
	switch {
	case spec.CSI == nil || spec.CSI.Driver != rules.Driver:
		return fmt.Errorf("its volume %s is not one of driver %s", c.Volume.Name, rules.Driver)
	case spec.ClaimRef == nil || spec.ClaimRef.UID != c.Claim.UID || c.Volume.Status.Phase != corev1.VolumeBound:
		return fmt.Errorf("its volume %s is not bound to it", c.Volume.Name)
	case volumeMode(spec.VolumeMode) != volumeMode(clone.Spec.VolumeMode):
		return fmt.Errorf("its volume has mode %s and the claim has mode %s", volumeMode(spec.VolumeMode), volumeMode(clone.Spec.VolumeMode))
	}
	return nil
}
