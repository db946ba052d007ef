package attach

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"

	"github.com/holdfast-io/holdfast/internal/csi"
)

// An action is what is to be done next about a VolumeAttachment.
type action int

const (
	none          action = iota // nothing, or it is somebody else's turn
	markAttached                // say that it is attached: the driver has nothing to do for that
	reportProblem               // say why it cannot be attached or detached; what it waits for wakes it up
	publish                     // put it on record, then publish the volume
	republish                   // take away what an earlier try may have published elsewhere, then publish
	unpublish                   // take the volume away, then let the object go
)

type step struct {
	action  action
	message string // what to say
}

// state is all that is known about one VolumeAttachment at one moment.
type state struct {
	attachment *storagev1.VolumeAttachment  // nil if it is gone
	volume     *corev1.PersistentVolume     // nil if it is gone, or if the volume is inline
	spec       *corev1.PersistentVolumeSpec // the volume's in the driver's form, or the inline one; nil if it is gone
	// translationErr is why the volume could not be put into the driver's form.
	translationErr error
	// fallback is what was published if the record does not say: what the volume
	// was called on the node that is on record.
	fallback        record
	nodeID          string // the driver's id of the node; empty if it does not have the driver
	canPublish      bool   // the driver says that it can publish volumes
	resyncRequested bool   // the driver's own list says otherwise than the status
}

// decide holds every rule about what is attached and detached, and when. It does
// no I/O; each rule is a row of its test.
func decide(s state, o *Options) step {
	a := s.attachment
	switch {
	case a == nil, a.Spec.Attacher != o.Driver:
		return step{action: none}
	case s.isDeleting():
		return decideDetach(s, o)
	default:
		return decideAttach(s, o)
	}
}

func decideAttach(s state, o *Options) step {
	attached := s.attachment.Status.Attached
	switch {
	case attached && !s.resyncRequested:
		return step{action: none}
	case !s.canPublish && !s.hasFinalizer(o):
		return step{action: markAttached} // If it was asked before, it is asked again, whatever it says by now.
	}
	if problem := s.problem(o); problem != "" {
		return step{reportProblem, problem}
	}
	if s.hasFinalizer(o) && recordOf(s.attachment).differsFrom(s.desired()) {
		return step{action: republish}
	}
	return step{action: publish}
}

// decideDetach relies on the record. What it lacks, because upstream's
// csi-attacher has written it, is taken from where upstream would look.
func decideDetach(s state, o *Options) step {
	if !s.hasFinalizer(o) && (!s.resyncRequested || !s.canPublish) {
		return step{action: none} // It was never asked for, or it is done.
	}
	there := s.published()
	if there.handle == "" {
		return step{reportProblem, fmt.Sprintf("which volume of driver %s to detach cannot be told: %s, and the VolumeAttachment does not say; when you have detached it at the storage, remove the finalizer %s",
			o.Driver, s.whyUnknown(), o.finalizer())}
	}
	if there.nodeID == "" {
		return step{reportProblem, fmt.Sprintf("which node to detach the volume from cannot be told: node %s does not have driver %s any more, and the VolumeAttachment does not say; when you have detached it at the storage, remove the finalizer %s",
			s.attachment.Spec.NodeName, o.Driver, o.finalizer())}
	}
	return step{action: unpublish}
}

// problem is why a volume cannot be published now; empty if it can.
func (s *state) problem(o *Options) string {
	source := s.attachment.Spec.Source
	switch {
	case (source.PersistentVolumeName == nil) == (source.InlineVolumeSpec == nil):
		return "its source must be either a PersistentVolume or an inline volume"
	case s.spec == nil:
		return fmt.Sprintf("PersistentVolume %s is not there", volumeName(s.attachment))
	case s.volume != nil && s.volume.DeletionTimestamp != nil:
		return fmt.Sprintf("PersistentVolume %s is being deleted", s.volume.Name)
	case s.translationErr != nil:
		return s.translationErr.Error()
	case s.spec.CSI == nil:
		return "the volume is not one of a CSI driver"
	case s.spec.CSI.Driver != o.Driver:
		return fmt.Sprintf("the volume is of driver %s and this is the attacher of %s", s.spec.CSI.Driver, o.Driver)
	case s.nodeID == "":
		return fmt.Sprintf("node %s does not have driver %s: its CSINode does not list it. Is the driver running there?", s.attachment.Spec.NodeName, o.Driver)
	}
	return ""
}

// isDeleting tells in which lane the VolumeAttachment is.
func (s *state) isDeleting() bool { return s.attachment.DeletionTimestamp != nil }

// hasFinalizer tells whether our finalizer is on the VolumeAttachment: whether the
// driver may have been asked.
func (s *state) hasFinalizer(o *Options) bool {
	return slices.Contains(s.attachment.Finalizers, o.finalizer())
}

// desired is what is to be published now.
func (s *state) desired() record {
	return record{handle: s.spec.CSI.VolumeHandle, nodeID: s.nodeID, secret: s.spec.CSI.ControllerPublishSecretRef}
}

// published is what may be published: what is on record, and for what is not
// there what would be published now. A volume that is another driver's by now is
// not what this one has published.
func (s *state) published() record {
	r := recordOf(s.attachment)
	if r.nodeID == "" {
		r.nodeID = s.nodeID
	}
	switch {
	case r.handle != "":
	case s.fallback.handle != "":
		r.handle, r.secret = s.fallback.handle, s.fallback.secret
	case s.spec != nil && s.spec.CSI != nil && s.spec.CSI.Driver == s.attachment.Spec.Attacher:
		r.handle, r.secret = s.spec.CSI.VolumeHandle, s.spec.CSI.ControllerPublishSecretRef
	}
	return r
}

// whyUnknown is why the volume does not say what was published.
func (s *state) whyUnknown() string {
	switch {
	case s.spec == nil:
		return fmt.Sprintf("PersistentVolume %s is gone", volumeName(s.attachment))
	case s.translationErr != nil:
		return s.translationErr.Error()
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
