package controller

import "github.com/holdfast-io/holdfast/internal/snapshot"

// An Action is what is to be done next about a snapshot.
type Action int

// Actions.
const (
	None    Action = iota // nothing, or it is somebody else's turn
	Refuse                // say why nothing can be done
	Create                // protect snapshot and claims, then make the content
	Adopt                 // a content that was there before gets the snapshot's UID
	Follow                // take over what the content says
	Wait                  // it shall go, and something still needs it: say what
	Explain               // it shall go, and the driver does not let it: say why
	Release               // let the content go, and delete it if that is its policy
	Strand                // its content is to be deleted by a node that is gone: say what to do
	LetGo                 // nothing is left of it: let the snapshot go
)

// A Step is an action and, for Refuse, Wait, Explain and Strand, the reason.
type Step struct {
	Action  Action
	Problem *snapshot.Problem
}

func refused(reason, format string, args ...any) Step {
	return Step{Refuse, snapshot.Problemf(reason, format, args...)}
}

// Decide holds every rule about what becomes of a snapshot of a kind. It does no
// I/O; each rule is a row of a test, here and beside the other kind.
func Decide(k Kind, o *Options, s *Observed) Step { return newJudge(k, o).decide(s) }

// A judge decides about the snapshots of a kind.
type judge struct {
	kind Kind
	*KindInfo
	distributed bool
}

func newJudge(k Kind, o *Options) judge { return judge{k, k.Info(), o.Distributed} }

func (j judge) decide(s *Observed) Step {
	switch {
	case s.Snapshot == nil:
		return Step{Action: None}
	case s.deleting():
		return j.decideEnd(s)
	case s.static():
		return j.decideStatic(s)
	case s.Content != nil:
		return j.decideDynamic(s)
	case s.Snapshot.Created:
		return refused(j.Reasons.ContentMissing, "%s %s is gone, and with it what is known of the %s", j.Content, s.Snapshot.ContentName, j.Noun)
	default:
		return j.decideCreate(s)
	}
}

// decideCreate tells whether a content can be made.
func (j judge) decideCreate(s *Observed) Step {
	if s.Snapshot.Member {
		return Step{Action: None} // Its group's controller makes the content.
	}
	if problem := j.kind.Check(s.Snapshot, s.Sources); problem != nil {
		return Step{Refuse, problem}
	}
	if problem := j.chooseClass(s); problem != nil {
		return Step{Refuse, problem}
	}
	if j.distributed && s.placed() && len(s.Nodes) == 0 {
		return refused(j.Reasons.Create, "no node can use %s, so there is no driver that could cut it", s.volumes())
	}
	return Step{Action: Create}
}

// chooseClass finds the class: the one that the snapshot names, else the one that
// is the default of the volumes' driver.
func (j judge) chooseClass(s *Observed) *snapshot.Problem {
	choice := snapshot.ClassChoice{
		Kind: j.Class, Keys: j.Keys, Named: s.Snapshot.Class, Defaults: s.Defaults, Class: s.Class,
		Driver: s.Sources[0].Volume.Spec.CSI.Driver, Claim: s.Sources[0].Name,
		Reason: j.Reasons.Class, DefaultReason: j.Reasons.DefaultClass,
	}
	return choice.Check()
}

// decideDynamic is about a snapshot whose content has been made for it.
func (j judge) decideDynamic(s *Observed) Step {
	ref, name := s.Content.Ref, s.Content.Object.GetName()
	switch {
	case s.Snapshot.Member && s.refers():
		return Step{Action: Follow}
	case s.Content.PreProvisioned:
		return refused(j.Reasons.HandleSet, "%s %s has the name of the one for this %s and is of one that was there before", j.Content, name, j.Noun)
	case !s.bound():
		return refused(j.Reasons.Misbound, "%s %s is bound to another %s, %s/%s", j.Content, name, j.Noun, ref.Namespace, ref.Name)
	default:
		return Step{Action: Follow}
	}
}

// decideStatic is about a snapshot that names a content that was there before.
func (j judge) decideStatic(s *Observed) Step {
	name := s.Snapshot.ContentName
	switch {
	case s.Content == nil:
		return refused(j.Reasons.ContentMissing, "%s %s is not there", j.Content, name)
	case !s.Content.PreProvisioned:
		return refused(j.Reasons.ContentMismatch, "%s %s is made from %s: a %s can only name one that has %s", j.Content, name, j.Volumes, j.Noun, j.PreProvisioned)
	case !s.refers():
		ref := s.Content.Ref
		return refused(j.Reasons.ContentMisbound, "%s %s is bound to another %s, %s/%s with uid %q", j.Content, name, j.Noun, ref.Namespace, ref.Name, ref.UID)
	case s.bound():
		return Step{Action: Follow}
	case s.leaves():
		return refused(j.Reasons.ContentMissing, "%s %s is being deleted", j.Content, name)
	default:
		return Step{Action: Adopt}
	}
}

// decideEnd is about a snapshot that is being deleted. It goes when nothing needs
// it and its content is gone, with what is at the driver, or shall stay.
func (j judge) decideEnd(s *Observed) Step {
	switch {
	case !j.held(s.Snapshot):
		return Step{Action: None}
	case s.Users != nil:
		return Step{Wait, s.Users}
	case !s.bound():
		return Step{Action: LetGo}
	case !j.Keys.DeletionAllowed(s.Content.Object):
		return Step{Action: Release}
	case s.stays():
		return Step{Action: LetGo}
	default:
		return j.decideLeaving(s)
	}
}

// decideLeaving is about a snapshot whose content may go with what is at the driver.
// The driver's half has its turn then. That it is done is an event.
func (j judge) decideLeaving(s *Observed) Step {
	switch {
	case s.Stranded && s.Content.AtDriver:
		return Step{Strand, j.stranded(s.Content)}
	case !s.leaves():
		return Step{Action: Release}
	case messageOf(s.Content.Error) != "":
		return Step{Explain, snapshot.Problemf(j.Reasons.DeletionPending, "%s %s cannot be deleted yet: %s", j.Content, s.Content.Object.GetName(), messageOf(s.Content.Error))}
	default:
		return Step{Action: None}
	}
}
