package sidecar

import (
	"fmt"
	"slices"

	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// An action is what is to be done next about a content.
type action int

const (
	none            action = iota // nothing, or it is somebody else's turn
	reportProblem                 // say why nothing can be done
	create                        // put it on record, then ask the driver for the snapshot
	clearAnnotation               // the answer is written: take the mark off that says it is not
	poll                          // ask the driver how far the snapshot is
	resolve                       // it shall go and nobody knows whether it was made: ask for it until the driver answers
	deleteSnapshot                // delete the snapshot at the driver, then let the content go
	removeFinalizer               // let the content go: there is nothing at the driver, or it shall stay
)

type step struct {
	action  action
	problem error // why, for refuse
}

// state is all that is known about one content at one moment.
type state struct {
	Content
	class *snapshot.Class // nil if the content names none, or it is gone
}

// decide holds every rule about what is asked of the driver, and when. It does
// no I/O; each rule is a row of its test.
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

// canDelete tells whether the content may go. It may if the cluster's half says so:
// a content that somebody has deleted whose snapshot lives on waits. One that
// was never bound has nobody who could say so.
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
		return step{action: removeFinalizer} // The group's deletion deletes it.
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
		return step{action: none} // The handle comes with that of its group.
	case len(s.Volumes) == 0:
		return step{reportProblem, snapshot.Problemf(r.kind.Reasons().Create, "the content names neither a volume nor a snapshot")}
	case recorded:
		return step{action: create} // What the class says now makes no difference.
	case s.Class == "":
		return step{reportProblem, snapshot.Problemf(r.kind.Reasons().Create, "the content names no class, so the driver's parameters are not known")}
	case s.class == nil && recordedRequest(&s.Content) == nil:
		return step{reportProblem, snapshot.Problemf(r.kind.Reasons().Create, "class %s is not there: make it again, or delete the snapshot", s.Class)}
	case s.class != nil && s.class.Driver != r.options.Driver:
		return step{reportProblem, snapshot.Problemf(r.kind.Reasons().Create, "class %s is of driver %s, and the content is of driver %s", s.Class, s.class.Driver, s.Driver)}
	}
	return step{action: create}
}

// isBeingCreated tells whether the driver may have been asked without its answer being
// on record.
func (r *Reconciler) isBeingCreated(s *state) bool {
	_, ok := s.Object.GetAnnotations()[r.keys.BeingCreated]
	return ok
}

// hasFinalizer tells whether the content is kept for us.
func (r *Reconciler) hasFinalizer(s *state) bool {
	return slices.Contains(s.Object.GetFinalizers(), r.keys.Finalizer)
}

// chooseRequest is what the driver is asked for. What is on record comes first, if the
// driver may have been asked for that, or has made it: under another name, after
// flags were changed, it would make a second one. Else the class decides, and only
// without one what an earlier try was about. Without anything the driver is asked
// by name alone: that is enough to find what is to be deleted.
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
		return nil, fmt.Errorf("preparing what to ask the driver for: %w", err)
	}
	return record, nil
}
