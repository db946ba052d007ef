package controller

import (
	"slices"
	"strings"

	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// An Action is what to do next about a snapshot.
type Action int

// Actions.
const (
	None                 Action = iota // nothing: it is done, or waits for somebody else
	Reject                             // report why no snapshot can be taken
	Create                             // add finalizers to the snapshot and to the claims, then create the content
	Bind                               // write the snapshot's UID to the pre-provisioned content
	SyncStatus                         // copy the content's status
	ReportBlocker                      // it is being deleted: report what still needs it
	ReportDeletionError                // it is being deleted: report why the driver does not delete it
	DeleteContent                      // allow the deletion of the content, and delete it if that is its policy
	ReportNodeGone                     // the node that must delete its content is gone: report what to do
	AwaitContentDeletion               // the csi-snapshotter must delete its content: report if it does not
	RemoveFinalizers                   // it is being deleted, and nothing is left of it
)

// A Step is an action. The actions that report a problem come with it.
type Step struct {
	Action  Action
	Problem *snapshot.Problem
}

func reject(reason, format string, args ...any) Step {
	return Step{Reject, snapshot.Problemf(reason, format, args...)}
}

// Decide holds every rule about what to do with a snapshot of a kind. It does no I/O.
// Each rule is a row of a table test, here and in the package of the other kind.
func Decide(k SnapshotKind, o *Options, s *Observed) Step { return newRules(k, o).decide(s) }

// rules decides about the snapshots of a kind.
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
		return reject(r.Reasons.ContentMissing, "%s %s is gone, so the %s cannot be used any more", r.Content, s.Snapshot.ContentName, r.Noun)
	default:
		return r.decideCreate(s)
	}
}

// decideCreate decides whether a content can be created.
func (r rules) decideCreate(s *Observed) Step {
	if s.Snapshot.IsMember {
		return Step{Action: None} // The group's controller creates the content.
	}
	if problem := r.kind.Validate(s.Snapshot, s.Sources); problem != nil {
		return Step{Reject, problem}
	}
	if problem := r.chooseClass(s); problem != nil {
		return Step{Reject, problem}
	}
	if r.distributed && s.hasNodeAffinity() && len(s.Nodes) == 0 {
		return reject(r.Reasons.Create, "no node can use %s, so no csi-snapshotter can create the snapshot", s.describeVolumes())
	}
	return Step{Action: Create}
}

// chooseClass checks the class: the one that the snapshot names, or else the default of
// the volumes' driver.
func (r rules) chooseClass(s *Observed) *snapshot.Problem {
	choice := snapshot.ClassChoice{
		Kind: r.Class, Keys: r.Keys, Named: s.Snapshot.Class, Defaults: s.DefaultClasses, Class: s.Class,
		Driver: s.Sources[0].Volume.Spec.CSI.Driver, Claim: s.Sources[0].Name,
		Reason: r.Reasons.Class, DefaultReason: r.Reasons.DefaultClass,
	}
	return choice.Check()
}

// decideDynamic is about a snapshot whose content was created for it.
func (r rules) decideDynamic(s *Observed) Step {
	ref, name := s.Content.Ref, s.Content.Object.GetName()
	switch {
	case s.Snapshot.IsMember && s.isReferencedByContent():
		return Step{Action: SyncStatus}
	case s.Content.PreProvisioned:
		return reject(r.Reasons.HandleSet, "%s %s has the name that the content of this %s must have, but it is pre-provisioned", r.Content, name, r.Noun)
	case !s.isBound():
		return reject(r.Reasons.Misbound, "%s %s is bound to another %s, %s/%s", r.Content, name, r.Noun, ref.Namespace, ref.Name)
	default:
		return Step{Action: SyncStatus}
	}
}

// decidePreProvisioned is about a snapshot that names a pre-provisioned content.
func (r rules) decidePreProvisioned(s *Observed) Step {
	name := s.Snapshot.ContentName
	switch {
	case s.Content == nil:
		return reject(r.Reasons.ContentMissing, "%s %s does not exist", r.Content, name)
	case !s.Content.PreProvisioned:
		return reject(r.Reasons.ContentMismatch, "%s %s is created from %s: a %s can only name a content that has %s", r.Content, name, r.DynamicSource, r.Noun, r.PreProvisionedSource)
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

// decideDeletion is about a snapshot that is being deleted. Its finalizers are removed
// when nothing needs it, and its content, with the snapshot at the driver, is gone or is
// retained.
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

// decideContentDeletion is about a snapshot whose content the csi-snapshotter may delete
// now. The deletion of the content is an event that wakes the snapshot.
func (r rules) decideContentDeletion(s *Observed) Step {
	switch {
	case s.Stranded && s.Content.MayExistAtDriver:
		return Step{ReportNodeGone, r.nodeGoneProblem(s.Content)}
	case !s.contentIsDeleting():
		return Step{Action: DeleteContent}
	case s.contentErrorIsCurrent():
		return Step{ReportDeletionError, snapshot.Problemf(r.Reasons.DeletionPending, "%s %s cannot be deleted yet: %s", r.Content, s.Content.Object.GetName(), errorMessage(s.Content.Error))}
	}
	others := s.Content.Object.GetFinalizers()
	if len(others) > 0 && !slices.Contains(others, r.Keys.Finalizer) {
		return Step{ReportBlocker, snapshot.Problemf(r.Reasons.DeletionPending, "%s %s is being deleted, and the csi-snapshotter is done with it: it is kept by the finalizers of others, %s",
			r.Content, s.Content.Object.GetName(), strings.Join(others, ", "))}
	}
	return Step{Action: AwaitContentDeletion}
}
