package reclaim

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// A kind is what is to be done next about a volume.
type kind int

const (
	rest    kind = iota // nothing, or it is somebody else's turn
	await               // it is still attached: its detachment wakes us up
	hold                // put our finalizer on, so that it cannot go unnoticed
	release             // take our finalizer off: the driver's volume shall stay
	destroy             // delete the volume at the driver, then the object
	locate              // find out whether the driver beside this process has it
	leave               // another node has it; tell if that takes long
	disown              // another provisioner of the driver has made it; tell if that takes long
)

// seen is all that is known about one volume at one moment.
type seen struct {
	volume   *corev1.PersistentVolume
	attached bool // some VolumeAttachment is about it
	claimed  bool // its claim is bound to it, whatever its phase says
}

// decide holds every rule about which volumes are deleted, and when. It does no
// I/O; each rule is a row of its test.
func decide(s seen, o *Options) kind {
	if !o.owns(s.volume) {
		return o.ofAnother(s.volume)
	}
	held := slices.Contains(s.volume.Finalizers, kube.VolumeFinalizer)
	deleting := s.volume.DeletionTimestamp != nil
	if s.volume.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete {
		return decideRetained(held, deleting || o.here(s.volume))
	}
	return o.fromHere(decideDeletable(s, held, deleting), s.volume)
}

// decideDeletable is about a volume that goes when nobody claims it any more. One
// that nobody claims, but that was not released either, such as one whose claimRef
// somebody has removed, goes when its object is deleted: our finalizer is what that
// waits for.
func decideDeletable(s seen, held, deleting bool) kind {
	switch s.volume.Status.Phase {
	case corev1.VolumeBound:
		if !held && !deleting {
			return hold
		}
	case corev1.VolumeReleased:
		return decideReleased(s, deleting && !held)
	default:
		if held && deleting && !s.claimed {
			return decideReleased(s, false)
		}
	}
	return rest
}

// decideRetained is about a volume whose object is only a description of it.
// Where each node has a provisioner of its own, the one beside the volume lets
// go of it at once. When somebody deletes the object and it is still held, that
// one is gone, and any other does it: no driver is asked.
func decideRetained(held, ours bool) kind {
	if held && ours {
		return release
	}
	return rest
}

// decideReleased is about a volume that nobody claims any more.
func decideReleased(s seen, gone bool) kind {
	switch {
	case gone:
		return rest // The driver's volume is gone; others still hold the object.
	case s.attached:
		return await
	default:
		return destroy
	}
}

// here tells whether a volume may be at the driver beside this process.
func (o *Options) here(volume *corev1.PersistentVolume) bool {
	at, _ := o.place(volume)
	return at == here || at == perhaps
}

// owns tells whether a volume is the driver's and made for our classes, or under
// the driver's own name, or by hand for the driver. One in the form of the plugin that the driver has
// taken the place of is ours if somebody has written so.
func (o *Options) owns(volume *corev1.PersistentVolume) bool {
	inTree := o.Plugin.Has(volume)
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
	return by == o.Provisioner || by == o.Driver || o.Plugin.Is(by)
}

// ofAnother is about a volume that is not ours. If it is the driver's and nobody
// deletes it, its provisioner may have another name now, or be gone.
func (o *Options) ofAnother(volume *corev1.PersistentVolume) kind {
	gone := volume.DeletionTimestamp != nil && !slices.Contains(volume.Finalizers, kube.VolumeFinalizer)
	if volume.Spec.CSI == nil || volume.Spec.CSI.Driver != o.Driver || volume.Status.Phase != corev1.VolumeReleased ||
		volume.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete || gone {
		return rest
	}
	return disown
}
