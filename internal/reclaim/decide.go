package reclaim

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// An action is what is to be done next about a volume.
type action int

const (
	none                   action = iota // nothing, or it is somebody else's turn
	waitForDetach                        // it is still attached: its detachment wakes us up
	addFinalizer                         // put our finalizer on, so that it cannot go unnoticed
	removeFinalizer                      // take our finalizer off: the driver's volume shall stay
	deleteVolume                         // delete the volume at the driver, then the object
	locate                               // find out whether the driver beside this process has it
	reportOtherNode                      // another node has it; tell if that takes long
	reportOtherProvisioner               // another provisioner of the driver has made it; tell if that takes long
)

// state is all that is known about one volume at one moment.
type state struct {
	volume       *corev1.PersistentVolume
	attached     bool // some VolumeAttachment is about it
	boundToClaim bool // its claim is bound to it, whatever its phase says
}

// decide holds every rule about which volumes are deleted, and when. It does no
// I/O; each rule is a row of its test.
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

// decideDeletable is about a volume that goes when nobody claims it any more. One
// that nobody claims, but that was not released either, such as one whose claimRef
// somebody has removed, goes when its object is deleted: our finalizer is what that
// waits for.
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

// decideRetained is about a volume whose object is only a description of it.
// Where each node has a provisioner of its own, the one beside the volume lets
// go of it at once. When somebody deletes the object and it is still held, that
// one is gone, and any other does it: no driver is asked.
func decideRetained(hasFinalizer, mayRemove bool) action {
	if hasFinalizer && mayRemove {
		return removeFinalizer
	}
	return none
}

// decideReleased is about a volume that nobody claims any more.
func decideReleased(s state, gone bool) action {
	switch {
	case gone:
		return none // The driver's volume is gone; others still hold the object.
	case s.attached:
		return waitForDetach
	default:
		return deleteVolume
	}
}

// mayBeHere tells whether a volume may be at the driver beside this process.
func (o *Options) mayBeHere(volume *corev1.PersistentVolume) bool {
	at, _ := o.locationOf(volume)
	return at == thisNode || at == unknownNode
}

// isSelected tells whether a volume is the driver's and made for our classes, or under
// the driver's own name, or by hand for the driver. One in the form of the plugin that the driver has
// taken the place of is ours if somebody has written so.
func (o *Options) isSelected(volume *corev1.PersistentVolume) bool {
	inTree := o.Plugin.HasVolume(volume)
	if !inTree && (volume.Spec.CSI == nil || volume.Spec.CSI.Driver != o.Driver) {
		return false
	}
	if volume.Annotations[kube.AnnMigratedTo] == o.Driver {
		return true
	}
	by, ok := volume.Annotations[kube.AnnProvisionedBy]
	if !ok {
		return !inTree
	}
	return by == o.Provisioner || by == o.Driver || o.Plugin.IsProvisioner(by)
}

// decideUnselected is about a volume that is not ours. If it is the driver's and nobody
// deletes it, its provisioner may have another name now, or be gone.
func (o *Options) decideUnselected(volume *corev1.PersistentVolume) action {
	gone := volume.DeletionTimestamp != nil && !slices.Contains(volume.Finalizers, kube.VolumeFinalizer)
	if volume.Spec.CSI == nil || volume.Spec.CSI.Driver != o.Driver || volume.Status.Phase != corev1.VolumeReleased ||
		volume.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete || gone {
		return none
	}
	return reportOtherProvisioner
}
