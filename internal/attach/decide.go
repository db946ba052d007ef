package attach

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"

	"github.com/holdfast-io/holdfast/internal/csi"
)

// A kind is what is to be done next about a VolumeAttachment.
type kind int

const (
	rest      kind = iota // nothing, or it is somebody else's turn
	mark                  // say that it is attached: the driver has nothing to do for that
	refuse                // say why it cannot be attached or detached; what it waits for wakes it up
	publish               // put it on record, then publish the volume
	move                  // take away what an earlier try may have published elsewhere, then publish
	unpublish             // take the volume away, then let the object go
)

type step struct {
	kind    kind
	message string // what to say
}

// seen is all that is known about one VolumeAttachment at one moment.
type seen struct {
	attachment *storagev1.VolumeAttachment  // nil if it is gone
	volume     *corev1.PersistentVolume     // nil if it is gone, or if the volume is inline
	spec       *corev1.PersistentVolumeSpec // the volume's in the driver's form, or the inline one; nil if it is gone
	// untranslated is why the volume could not be put into the driver's form.
	untranslated error
	// unrecorded is what was published if the record does not say: what the volume
	// was called on the node that is on record.
	unrecorded record
	node       string // the driver's id of the node; empty if it does not have the driver
	publishes  bool   // the driver says that it can publish volumes
	forced     bool   // the driver's own list says otherwise than the status
}

// decide holds every rule about what is attached and detached, and when. It does
// no I/O; each rule is a row of its test.
func decide(s seen, o *Options) step {
	a := s.attachment
	switch {
	case a == nil, a.Spec.Attacher != o.Driver:
		return step{kind: rest}
	case s.deleting():
		return decideDetach(s, o)
	default:
		return decideAttach(s, o)
	}
}

func decideAttach(s seen, o *Options) step {
	attached := s.attachment.Status.Attached
	switch {
	case attached && !s.forced:
		return step{kind: rest}
	case !s.publishes && !s.held(o):
		return step{kind: mark} // If it was asked before, it is asked again, whatever it says by now.
	}
	if problem := s.problem(o); problem != "" {
		return step{refuse, problem}
	}
	if s.held(o) && recordOf(s.attachment).elsewhere(s.wanted()) {
		return step{kind: move}
	}
	return step{kind: publish}
}

// decideDetach relies on the record. What it lacks, because upstream's
// csi-attacher has written it, is taken from where upstream would look.
func decideDetach(s seen, o *Options) step {
	if !s.held(o) && (!s.forced || !s.publishes) {
		return step{kind: rest} // It was never asked for, or it is done.
	}
	there := s.published()
	if there.handle == "" {
		return step{refuse, fmt.Sprintf("which volume of driver %s to detach cannot be told: %s, and the VolumeAttachment does not say; when you have detached it at the storage, remove the finalizer %s",
			o.Driver, s.untold(), o.finalizer())}
	}
	if there.node == "" {
		return step{refuse, fmt.Sprintf("which node to detach the volume from cannot be told: node %s does not have driver %s any more, and the VolumeAttachment does not say; when you have detached it at the storage, remove the finalizer %s",
			s.attachment.Spec.NodeName, o.Driver, o.finalizer())}
	}
	return step{kind: unpublish}
}

// problem is why a volume cannot be published now; empty if it can.
func (s *seen) problem(o *Options) string {
	source := s.attachment.Spec.Source
	switch {
	case (source.PersistentVolumeName == nil) == (source.InlineVolumeSpec == nil):
		return "its source must be either a PersistentVolume or an inline volume"
	case s.spec == nil:
		return fmt.Sprintf("PersistentVolume %s is not there", volumeName(s.attachment))
	case s.volume != nil && s.volume.DeletionTimestamp != nil:
		return fmt.Sprintf("PersistentVolume %s is being deleted", s.volume.Name)
	case s.untranslated != nil:
		return s.untranslated.Error()
	case s.spec.CSI == nil:
		return "the volume is not one of a CSI driver"
	case s.spec.CSI.Driver != o.Driver:
		return fmt.Sprintf("the volume is of driver %s and this is the attacher of %s", s.spec.CSI.Driver, o.Driver)
	case s.node == "":
		return fmt.Sprintf("node %s does not have driver %s: its CSINode does not list it. Is the driver running there?", s.attachment.Spec.NodeName, o.Driver)
	}
	return ""
}

// deleting tells in which lane the VolumeAttachment is.
func (s *seen) deleting() bool { return s.attachment.DeletionTimestamp != nil }

// held tells whether our finalizer is on the VolumeAttachment: whether the
// driver may have been asked.
func (s *seen) held(o *Options) bool { return slices.Contains(s.attachment.Finalizers, o.finalizer()) }

// wanted is what is to be published now.
func (s *seen) wanted() record {
	return record{handle: s.spec.CSI.VolumeHandle, node: s.node, secret: s.spec.CSI.ControllerPublishSecretRef}
}

// published is what may be published: what is on record, and for what is not
// there what would be published now. A volume that is another driver's by now is
// not what this one has published.
func (s *seen) published() record {
	r := recordOf(s.attachment)
	if r.node == "" {
		r.node = s.node
	}
	switch {
	case r.handle != "":
	case s.unrecorded.handle != "":
		r.handle, r.secret = s.unrecorded.handle, s.unrecorded.secret
	case s.spec != nil && s.spec.CSI != nil && s.spec.CSI.Driver == s.attachment.Spec.Attacher:
		r.handle, r.secret = s.spec.CSI.VolumeHandle, s.spec.CSI.ControllerPublishSecretRef
	}
	return r
}

// untold is why the volume does not say what was published.
func (s *seen) untold() string {
	switch {
	case s.spec == nil:
		return fmt.Sprintf("PersistentVolume %s is gone", volumeName(s.attachment))
	case s.untranslated != nil:
		return s.untranslated.Error()
	case s.spec.CSI != nil:
		return fmt.Sprintf("the volume is of driver %s now", s.spec.CSI.Driver)
	default:
		return "the volume is not one of a CSI driver"
	}
}

// finalizer keeps a VolumeAttachment until the volume is detached, and a
// PersistentVolume while it may be attached.
func (o *Options) finalizer() string { return "external-attacher/" + csi.SafeName(o.Driver) }

// volumeName is the PersistentVolume of a VolumeAttachment; empty for an inline
// volume.
func volumeName(a *storagev1.VolumeAttachment) string {
	if a.Spec.Source.PersistentVolumeName == nil {
		return ""
	}
	return *a.Spec.Source.PersistentVolumeName
}
