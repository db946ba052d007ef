package controller

import (
	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// An Action is what is to be done next about a snapshot.
type Action int

// Actions.
const (
	None                Action = iota // nothing, or it is somebody else's turn
	Reject                            // say why nothing can be done
	Create                            // protect snapshot and claims, then make the content
	Bind                              // a content that was there before gets the snapshot's UID
	SyncStatus                        // take over what the content says
	ReportBlocker                     // it shall go, and something still needs it: say what
	ReportDeletionError               // it shall go, and the driver does not let it: say why
	DeleteContent                     // let the content go, and delete it if that is its policy
	ReportNodeGone                    // its content is to be deleted by a node that is gone: say what to do
	RemoveFinalizers                  // nothing is left of it: let the snapshot go
)

// A Step is an action and, for Refuse, Wait, Explain and Strand, the reason.
type Step struct {
	Action  Action
	Problem *snapshot.Problem
}

func reject(reason, format string, args ...any) Step {
	return Step{Reject, snapshot.Problemf(reason, format, args...)}
}

// Decide holds every rule about what becomes of a snapshot of a kind. It does no
// I/O; each rule is a row of a test, here and beside the other kind.
func Decide(k SnapshotKind, o *Options, s *Observed) Step { return newRules(k, o).decide(s) }

// A rules decides about the snapshots of a kind.
type rules struct {
	kind SnapshotKind
	*KindInfo
	distributed bool
}

func newRules(k SnapshotKind, o *Options) rules { return rules{k, k.Info(), o.Distributed} }

func (r rules) decide(s *Observed) Step {
	switch {
	case s.Snapshot == nil:
		return Step{Action: None}
	case s.isDeleting():
		return r.decideDeletion(s)
	case s.isPreProvisioned():
		return r.decidePreProvisioned(s)
	case s.Content != nil:
		return r.decideDynamic(s)
	case s.Snapshot.Created:
		return reject(r.Reasons.ContentMissing, "%s %s is gone, and with it what is known of the %s", r.Content, s.Snapshot.ContentName, r.Noun)
	default:
		return r.decideCreate(s)
	}
}

// decideCreate tells whether a content can be made.
func (r rules) decideCreate(s *Observed) Step {
	if s.Snapshot.IsMember {
		return Step{Action: None} // Its group's controller makes the content.
	}
	if problem := r.kind.Validate(s.Snapshot, s.Sources); problem != nil {
		return Step{Reject, problem}
	}
	if problem := r.chooseClass(s); problem != nil {
		return Step{Reject, problem}
	}
	if r.distributed && s.hasNodeAffinity() && len(s.Nodes) == 0 {
		return reject(r.Reasons.Create, "no node can use %s, so there is no driver that could cut it", s.describeVolumes())
	}
	return Step{Action: Create}
}

// chooseClass finds the class: the one that the snapshot names, else the one that
// is the default of the volumes' driver.
func (r rules) chooseClass(s *Observed) *snapshot.Problem {
	choice := snapshot.ClassChoice{
		Kind: r.Class, Keys: r.Keys, Named: s.Snapshot.Class, Defaults: s.DefaultClasses, Class: s.Class,
		Driver: s.Sources[0].Volume.Spec.CSI.Driver, Claim: s.Sources[0].Name,
		Reason: r.Reasons.Class, DefaultReason: r.Reasons.DefaultClass,
	}
	return choice.Check()
}

// decideDynamic is about a snapshot whose content has been made for it.
func (r rules) decideDynamic(s *Observed) Step {
	ref, name := s.Content.Ref, s.Content.Object.GetName()
	switch {
	case s.Snapshot.IsMember && s.isReferencedByContent():
		return Step{Action: SyncStatus}
	case s.Content.PreProvisioned:
		return reject(r.Reasons.HandleSet, "%s %s has the name of the one for this %s and is of one that was there before", r.Content, name, r.Noun)
	case !s.isBound():
		return reject(r.Reasons.Misbound, "%s %s is bound to another %s, %s/%s", r.Content, name, r.Noun, ref.Namespace, ref.Name)
	default:
		return Step{Action: SyncStatus}
	}
}

// decidePreProvisioned is about a snapshot that names a content that was there before.
func (r rules) decidePreProvisioned(s *Observed) Step {
	name := s.Snapshot.ContentName
	switch {
	case s.Content == nil:
		return reject(r.Reasons.ContentMissing, "%s %s is not there", r.Content, name)
	case !s.Content.PreProvisioned:
		return reject(r.Reasons.ContentMismatch, "%s %s is made from %s: a %s can only name one that has %s", r.Content, name, r.DynamicSource, r.Noun, r.PreProvisionedSource)
	case !s.isReferencedByContent():
		ref := s.Content.Ref
		return reject(r.Reasons.ContentMisbound, "%s %s is bound to another %s, %s/%s with uid %q", r.Content, name, r.Noun, ref.Namespace, ref.Name, ref.UID)
	case s.isBound():
		return Step{Action: SyncStatus}
	case s.contentIsDeleting():
		return reject(r.Reasons.ContentMissing, "%s %s is being deleted", r.Content, name)
	default:
		return Step{Action: Bind}
	}
}

// decideDeletion is about a snapshot that is being deleted. It goes when nothing needs
// it and its content is gone, with what is at the driver, or shall stay.
func (r rules) decideDeletion(s *Observed) Step {
	switch {
	case !r.hasFinalizer(s.Snapshot):
		return Step{Action: None}
	case s.DeletionBlocker != nil:
		return Step{ReportBlocker, s.DeletionBlocker}
	case !s.isBound():
		return Step{Action: RemoveFinalizers}
	case !r.Keys.DeletionAllowed(s.Content.Object):
		return Step{Action: DeleteContent}
	case s.contentIsRetained():
		return Step{Action: RemoveFinalizers}
	default:
		return r.decideContentDeletion(s)
	}
}

// decideContentDeletion is about a snapshot whose content may go with what is at the driver.
// The driver's half has its turn then. That it is done is an event.
func (r rules) decideContentDeletion(s *Observed) Step {
	switch {
	case s.Stranded && s.Content.MayExistAtDriver:
		return Step{ReportNodeGone, r.nodeGoneProblem(s.Content)}
	case !s.contentIsDeleting():
		return Step{Action: DeleteContent}
	case errorMessage(s.Content.Error) != "":
		return Step{ReportDeletionError, snapshot.Problemf(r.Reasons.DeletionPending, "%s %s cannot be deleted yet: %s", r.Content, s.Content.Object.GetName(), errorMessage(s.Content.Error))}
	default:
		return Step{Action: None}
	}
}
