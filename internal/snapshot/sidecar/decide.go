package sidecar

import (
	"fmt"
	"slices"

	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// An action is what is to be done next about a content.
type action int

const (
	rest   action = iota // nothing, or it is somebody else's turn
	refuse               // say why nothing can be done
	create               // put it on record, then ask the driver for the snapshot
	settle               // the answer is written: take the mark off that says it is not
	follow               // ask the driver how far the snapshot is
	learn                // it shall go and nobody knows whether it was made: ask for it until the driver answers
	remove               // delete the snapshot at the driver, then let the content go
	letGo                // let the content go: there is nothing at the driver, or it shall stay
)

type step struct {
	action  action
	problem error // why, for refuse
}

// seen is all that is known about one content at one moment.
type seen struct {
	Content
	class *snapshot.Class // nil if the content names none, or it is gone
}

// decide holds every rule about what is asked of the driver, and when. It does
// no I/O; each rule is a row of its test.
func (r *Reconciler) decide(s *seen) step {
	switch {
	case !r.options.ours(&s.Content):
		return step{action: rest}
	case r.mayGo(s):
		return r.decideEnd(s)
	case s.handle() == "":
		return r.decideCreate(s)
	case r.marked(s):
		return step{action: settle}
	case s.Ready && s.Handle != "":
		return step{action: rest}
	default:
		return step{action: follow}
	}
}

// mayGo tells whether the content may go. It may if the cluster's half says so:
// a content that somebody has deleted whose snapshot lives on waits. One that
// was never bound has nobody who could say so.
func (r *Reconciler) mayGo(s *seen) bool {
	if s.Object.GetDeletionTimestamp() == nil || !r.held(s) {
		return false
	}
	_, permitted := s.Object.GetAnnotations()[r.marks.BeingDeleted]
	return permitted || s.PreProvisioned != "" && s.Ref.UID == ""
}

func (r *Reconciler) decideEnd(s *seen) step {
	switch {
	case s.Member != "":
		return step{action: letGo} // The group's deletion deletes it.
	case s.handle() == "" && r.marked(s):
		return step{action: learn}
	case s.Retain, s.handle() == "":
		return step{action: letGo}
	default:
		return step{action: remove}
	}
}

func (r *Reconciler) decideCreate(s *seen) step {
	recorded := r.marked(s) && askedOf(&s.Content) != nil
	switch {
	case s.Member != "":
		return step{action: rest} // The handle comes with that of its group.
	case len(s.Volumes) == 0:
		return step{refuse, snapshot.Problemf(r.kind.Reasons().Create, "the content names neither a volume nor a snapshot")}
	case recorded:
		return step{action: create} // What the class says now makes no difference.
	case s.Class == "":
		return step{refuse, snapshot.Problemf(r.kind.Reasons().Create, "the content names no class, so the driver's parameters are not known")}
	case s.class == nil && askedOf(&s.Content) == nil:
		return step{refuse, snapshot.Problemf(r.kind.Reasons().Create, "class %s is not there: make it again, or delete the snapshot", s.Class)}
	case s.class != nil && s.class.Driver != r.options.Driver:
		return step{refuse, snapshot.Problemf(r.kind.Reasons().Create, "class %s is of driver %s, and the content is of driver %s", s.Class, s.class.Driver, s.Driver)}
	}
	return step{action: create}
}

// marked tells whether the driver may have been asked without its answer being
// on record.
func (r *Reconciler) marked(s *seen) bool {
	_, ok := s.Object.GetAnnotations()[r.marks.BeingCreated]
	return ok
}

// held tells whether the content is kept for us.
func (r *Reconciler) held(s *seen) bool {
	return slices.Contains(s.Object.GetFinalizers(), r.marks.Finalizer)
}

// ask is what the driver is asked for. What is on record comes first, if the
// driver may have been asked for that, or has made it: under another name, after
// flags were changed, it would make a second one. Else the class decides, and only
// without one what an earlier try was about. Without anything the driver is asked
// by name alone: that is enough to find what is to be deleted.
func (r *Reconciler) ask(s *seen) (*asked, error) {
	recorded := askedOf(&s.Content)
	if recorded != nil && (r.marked(s) || s.handle() != "" || s.class == nil) {
		return recorded, nil
	}
	class := s.class
	if class == nil {
		class = &snapshot.Class{Name: s.Class}
	}
	a, err := want(r.kind, &s.Content, class, r.options.Describe)
	if err != nil {
		return nil, fmt.Errorf("preparing what to ask the driver for: %w", err)
	}
	return a, nil
}
