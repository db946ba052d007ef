package sidecar

import (
	"fmt"
	"slices"

	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// An action is the next thing to do for a content.
type action int

const (
	none            action = iota // nothing to do, or another controller acts next
	reportProblem                 // report why nothing can be done
	create                        // record the request, then create the snapshot at the driver
	clearAnnotation               // the result is recorded: remove the being-created annotation
	poll                          // read the snapshot's state from the driver
	resolve                       // the content is being deleted and the outcome of creating is unknown: find out
	deleteSnapshot                // delete the snapshot at the driver, then remove the finalizer
	removeFinalizer               // remove the finalizer: the driver has no snapshot, or it is retained
)

type step struct {
	action  action
	problem error // what to report, for reportProblem
}

// state is the observed state of one content.
type state struct {
	Content
	class *snapshot.Class // nil if the content names none, or the class does not exist
}

// decide has all rules about when the driver is called, and for what. It does no I/O. Each
// rule is a row of its test.
func (r *Reconciler) decide(s *state) step {
	switch {
	case !r.options.isOurs(&s.Content):
		return step{action: none}
	case r.canDelete(s):
		return r.decideDeletion(s)
	case s.handle() == "":
		return r.decideCreate(s)
	case r.isBeingCreated(s):
		return step{action: clearAnnotation}
	case s.Ready && s.Handle != "":
		return step{action: none}
	default:
		return step{action: poll}
	}
}

// canDelete reports whether the sidecar may finish the deletion of the content. It may once
// snapshot-controller has set the being-deleted annotation: a deleted content whose
// VolumeSnapshot still exists waits. Nobody sets the annotation on a pre-provisioned content
// that was never bound.
func (r *Reconciler) canDelete(s *state) bool {
	if s.Object.GetDeletionTimestamp() == nil || !r.hasFinalizer(s) {
		return false
	}
	_, permitted := s.Object.GetAnnotations()[r.keys.BeingDeleted]
	return permitted || s.PreProvisioned != "" && s.Ref.UID == ""
}

func (r *Reconciler) decideDeletion(s *state) step {
	switch {
	case s.GroupHandle != "":
		return step{action: removeFinalizer} // Deleting the group deletes it.
	case s.handle() == "" && r.isBeingCreated(s):
		return step{action: resolve}
	case s.Retain, s.handle() == "":
		return step{action: removeFinalizer}
	default:
		return step{action: deleteSnapshot}
	}
}

func (r *Reconciler) decideCreate(s *state) step {
	recorded := r.isBeingCreated(s) && recordedRequest(&s.Content) != nil
	switch {
	case s.GroupHandle != "":
		return step{action: none} // The handle comes with the group's.
	case len(s.Volumes) == 0:
		return step{reportProblem, snapshot.Problemf(r.kind.Reasons().Create, "the content names neither a volume nor a snapshot")}
	case recorded:
		return step{action: create} // Changes to the class do not matter.
	case s.Class == "":
		return step{reportProblem, snapshot.Problemf(r.kind.Reasons().Create, "the content names no class, so the driver's parameters are not known")}
	case s.class == nil && recordedRequest(&s.Content) == nil:
		return step{reportProblem, snapshot.Problemf(r.kind.Reasons().Create, "class %s does not exist: create it, or delete the snapshot", s.Class)}
	case s.class != nil && s.class.Driver != r.options.Driver:
		return step{reportProblem, snapshot.Problemf(r.kind.Reasons().Create, "class %s is of driver %s, and the content is of driver %s", s.Class, s.class.Driver, s.Driver)}
	}
	return step{action: create}
}

// isBeingCreated reports whether the driver may have been called without its response being
// recorded.
func (r *Reconciler) isBeingCreated(s *state) bool {
	_, ok := s.Object.GetAnnotations()[r.keys.BeingCreated]
	return ok
}

// hasFinalizer reports whether the content has our finalizer.
func (r *Reconciler) hasFinalizer(s *state) bool {
	return slices.Contains(s.Object.GetFinalizers(), r.keys.Finalizer)
}

// chooseRequest returns the request to send to the driver. The recorded request is used if it
// may have been sent, or has created the snapshot: after a change of flags, another name
// would create a second snapshot. Otherwise the class decides, or the recorded request if the
// class does not exist. Without either, the request has only the name, which is enough to
// find a snapshot that must be deleted.
func (r *Reconciler) chooseRequest(s *state) (*requestRecord, error) {
	recorded := recordedRequest(&s.Content)
	if recorded != nil && (r.isBeingCreated(s) || s.handle() != "" || s.class == nil) {
		return recorded, nil
	}
	class := s.class
	if class == nil {
		class = &snapshot.Class{Name: s.Class}
	}
	record, err := newRequestRecord(r.kind, &s.Content, class, r.options.ExtraCreateMetadata)
	if err != nil {
		return nil, fmt.Errorf("preparing the request: %w", err)
	}
	return record, nil
}
