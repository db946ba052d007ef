package attach

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"

	"github.com/holdfast-io/holdfast/internal/csi"
)

// An action is what the controller does next about a VolumeAttachment.
type action int

const (
	none          action = iota // nothing, or another component acts next
	markAttached                // set attached in the status; the driver does not need to be called
	reportProblem               // report why it cannot be attached or detached; a later event retries it
	publish                     // write the record, then publish the volume
	republish                   // unpublish what an earlier attempt may have published elsewhere, then publish
	unpublish                   // unpublish the volume, then remove our finalizer
)

// A step is a decision: an action and its details.
type step struct {
	action  action
	message string // for reportProblem
}

// state is the observed state of one VolumeAttachment.
type state struct {
	attachment *storagev1.VolumeAttachment  // nil if it is gone
	volume     *corev1.PersistentVolume     // nil if it is gone, or if the volume is inline
	spec       *corev1.PersistentVolumeSpec // the volume's in CSI form, or the inline one; nil if the volume is gone
	// translationErr is why the volume could not be translated into CSI form.
	translationErr error
	// fallback has the handle and the secret of an in-tree volume on the
	// recorded node. It is used if the record has no handle.
	fallback        record
	nodeID          string // the driver's ID of the node; empty if the node does not have the driver
	canPublish      bool   // the driver has PUBLISH_UNPUBLISH_VOLUME
	resyncRequested bool   // the driver's list differs from the status
}

// decide has all rules about what is attached and detached, and when. It does
// no I/O, and its test has a row for each rule.
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
		return step{action: markAttached} // With our finalizer the driver may have been called before, so it is called again.
	}
	if problem := s.problem(o); problem != "" {
		return step{reportProblem, problem}
	}
	if s.hasFinalizer(o) && recordOf(s.attachment).differsFrom(s.desired()) {
		return step{action: republish}
	}
	return step{action: publish}
}

// decideDetach uses the record. Upstream's csi-attacher records less; what is
// missing comes from where upstream reads it.
func decideDetach(s state, o *Options) step {
	if !s.hasFinalizer(o) && (!s.resyncRequested || !s.canPublish) {
		return step{action: none} // The driver was never called, or the volume is detached already.
	}
	published := s.published()
	if published.handle == "" {
		return step{reportProblem, fmt.Sprintf("the volume of driver %s to detach is unknown: %s, and the VolumeAttachment has no record of it; detach it at the storage, then remove the finalizer %s",
			o.Driver, s.whyUnknown(), o.finalizer())}
	}
	if published.nodeID == "" {
		return step{reportProblem, fmt.Sprintf("the node to detach the volume from is unknown: node %s does not have driver %s any more, and the VolumeAttachment has no record of it; detach the volume at the storage, then remove the finalizer %s",
			s.attachment.Spec.NodeName, o.Driver, o.finalizer())}
	}
	return step{action: unpublish}
}

// problem returns why the volume cannot be published now, and "" if it can.
func (s *state) problem(o *Options) string {
	source := s.attachment.Spec.Source
	switch {
	case (source.PersistentVolumeName == nil) == (source.InlineVolumeSpec == nil):
		return "its source must be either a PersistentVolume or an inline volume"
	case s.spec == nil:
		return fmt.Sprintf("PersistentVolume %s does not exist", volumeName(s.attachment))
	case s.volume != nil && s.volume.DeletionTimestamp != nil:
		return fmt.Sprintf("PersistentVolume %s is being deleted", s.volume.Name)
	case s.translationErr != nil:
		return s.translationErr.Error()
	case s.spec.CSI == nil:
		return "the volume is not a CSI volume"
	case s.spec.CSI.Driver != o.Driver:
		return fmt.Sprintf("the volume belongs to driver %s, and this is the attacher of driver %s", s.spec.CSI.Driver, o.Driver)
	case s.nodeID == "":
		return fmt.Sprintf("node %s does not have driver %s: its CSINode does not list it. Is the driver running there?", s.attachment.Spec.NodeName, o.Driver)
	}
	return ""
}

// isDeleting reports whether the VolumeAttachment is to be detached, which is
// the detach queue's work.
func (s *state) isDeleting() bool { return s.attachment.DeletionTimestamp != nil }

// hasFinalizer reports whether the VolumeAttachment has our finalizer. If so,
// the driver may have been called.
func (s *state) hasFinalizer(o *Options) bool {
	return slices.Contains(s.attachment.Finalizers, o.finalizer())
}

// desired returns what is to be published now.
func (s *state) desired() record {
	return record{handle: s.spec.CSI.VolumeHandle, nodeID: s.nodeID, secret: s.spec.CSI.ControllerPublishSecretRef}
}

// published returns what may be published: the record, completed by what would
// be published now. A volume that belongs to another driver by now is not the
// one that this driver published.
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

// whyUnknown returns why the PersistentVolume does not show what was published.
func (s *state) whyUnknown() string {
	switch {
	case s.spec == nil:
		return fmt.Sprintf("PersistentVolume %s is gone", volumeName(s.attachment))
	case s.translationErr != nil:
		return s.translationErr.Error()
	case s.spec.CSI != nil:
		return fmt.Sprintf("the volume belongs to driver %s now", s.spec.CSI.Driver)
	default:
		return "the volume is not a CSI volume"
	}
}

// finalizer is on a VolumeAttachment until its volume is detached, and on a
// PersistentVolume while it may be attached.
func (o *Options) finalizer() string { return csi.AttachFinalizer(o.Driver) }

// volumeName returns the name of a VolumeAttachment's PersistentVolume, and ""
// for an inline volume.
func volumeName(a *storagev1.VolumeAttachment) string {
	if a.Spec.Source.PersistentVolumeName == nil {
		return ""
	}
	return *a.Spec.Source.PersistentVolumeName
}
