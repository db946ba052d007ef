package reclaim

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// An action is what the controller does next about a volume.
type action int

const (
	none                   action = iota // nothing, or another component acts next
	waitForDetach                        // it is still attached; its detachment enqueues it
	addFinalizer                         // add our finalizer, so that the object stays until the volume is deleted
	removeFinalizer                      // remove our finalizer: the driver's volume is retained
	deleteVolume                         // delete the volume at the driver, then the object
	locate                               // find out whether the driver of this node has the volume
	reportOtherNode                      // another node has the volume; emit an event if its deletion takes long
	reportOtherProvisioner               // another provisioner of the driver created it; emit an event if its deletion takes long
)

// state is the observed state of one volume.
type state struct {
	volume       *corev1.PersistentVolume
	attached     bool // it has a VolumeAttachment
	boundToClaim bool // its claim is bound to it, whatever the phase of the volume is
}

// decide has all rules about which volumes are deleted, and when. It does no
// I/O, and its test has a row for each rule.
func decide(s state, o *Options) action {
	if !o.isSelected(s.volume) {
		return o.decideUnselected(s.volume)
	}
	hasFinalizer := slices.Contains(s.volume.Finalizers, kube.VolumeFinalizer)
	deleting := s.volume.DeletionTimestamp != nil
	if s.volume.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete {
		return decideRetained(hasFinalizer, deleting || o.mayBeHere(s.volume))
	}
	return o.restrictToNode(decideDeletable(s, hasFinalizer, deleting), s.volume)
}

// decideDeletable decides about a volume with reclaim policy Delete. A volume
// without a claim that was not released either, for example because somebody
// removed its claimRef, is deleted when its object is deleted: our finalizer
// makes the object wait for that.
func decideDeletable(s state, hasFinalizer, deleting bool) action {
	switch s.volume.Status.Phase {
	case corev1.VolumeBound:
		if !hasFinalizer && !deleting {
			return addFinalizer
		}
	case corev1.VolumeReleased:
		return decideReleased(s, deleting && !hasFinalizer)
	default:
		if hasFinalizer && deleting && !s.boundToClaim {
			return decideReleased(s, false)
		}
	}
	return none
}

// decideRetained decides about a volume that stays at the driver when its
// object is deleted. Where each node has a provisioner of its own, the one on
// the volume's node removes the finalizer at once. If the object is being
// deleted and still has the finalizer, that provisioner is gone, and any other
// one removes it: the driver is not called.
func decideRetained(hasFinalizer, mayRemove bool) action {
	if hasFinalizer && mayRemove {
		return removeFinalizer
	}
	return none
}

// decideReleased decides about a volume that no claim uses any more.
func decideReleased(s state, gone bool) action {
	switch {
	case gone:
		return none // The driver's volume is gone; only other finalizers keep the object.
	case s.attached:
		return waitForDetach
	default:
		return deleteVolume
	}
}

// mayBeHere reports whether the driver of this node may have the volume.
func (o *Options) mayBeHere(volume *corev1.PersistentVolume) bool {
	at, _ := o.locationOf(volume)
	return at == thisNode || at == unknownNode
}

// isSelected reports whether this provisioner deletes a volume: it belongs to
// the driver, and it was provisioned for our classes, under the driver's own
// name, or by hand. An in-tree volume must be annotated as handed over to the
// driver, or as provisioned by the in-tree plugin or by us.
func (o *Options) isSelected(volume *corev1.PersistentVolume) bool {
	if !o.Plugin.IsVolumeOf(o.Driver, volume) {
		return false
	}
	if volume.Annotations[kube.AnnMigratedTo] == o.Driver {
		return true
	}
	by, ok := volume.Annotations[kube.AnnProvisionedBy]
	if !ok {
		return !o.Plugin.HasVolume(volume)
	}
	return by == o.Provisioner || by == o.Driver || o.Plugin.IsProvisioner(by)
}

// decideUnselected decides about a volume that is not selected. If it belongs
// to the driver and nobody deletes it, its provisioner may have been renamed or
// removed.
func (o *Options) decideUnselected(volume *corev1.PersistentVolume) action {
	gone := volume.DeletionTimestamp != nil && !slices.Contains(volume.Finalizers, kube.VolumeFinalizer)
	if volume.Spec.CSI == nil || volume.Spec.CSI.Driver != o.Driver || volume.Status.Phase != corev1.VolumeReleased ||
		volume.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete || gone {
		return none
	}
	return reportOtherProvisioner
}
