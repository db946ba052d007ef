package controller

import (
	"slices"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// Observed is all that is known about one snapshot at one moment.
type Observed struct {
	Snapshot        *Snapshot         // nil if it is gone
	Content         *Content          // the one that it names, or that is made for it; nil if it is not there
	Class           *snapshot.Class   // nil if it names none, or it is not there
	DefaultClasses  []string          // names of the default classes of the volumes' driver, if it names none
	Sources         []snapshot.Source // the claims that it is of
	Nodes           []string          // where all of their volumes are, if that is asked for
	DeletionBlocker *snapshot.Problem // what still needs it, if it is being deleted
	Stranded        bool              // its content is on its way out, and the node whose driver must delete it is gone
	ObservedAt      time.Time         // before it was looked at
}

// isPreProvisioned tells whether the snapshot names a content that was there before.
func (s *Observed) isPreProvisioned() bool { return s.Snapshot.PreProvisionedContent != "" }

func (s *Observed) isDeleting() bool { return s.Snapshot.Object.GetDeletionTimestamp() != nil }

// isReferencedByContent tells whether the content's reference is to the snapshot.
func (s *Observed) isReferencedByContent() bool {
	o := s.Snapshot.Object
	return snapshot.RefersTo(s.Content.Ref, o.GetNamespace(), o.GetName(), o.GetUID())
}

// isBound tells whether the content is there, and is the snapshot's and nobody
// else's.
func (s *Observed) isBound() bool {
	return s.Content != nil && s.Content.Ref.UID == s.Snapshot.Object.GetUID() && s.isReferencedByContent()
}

// contentIsRetained tells whether the content is left when the snapshot goes.
func (s *Observed) contentIsRetained() bool {
	return s.Content.Retain && !s.Content.MemberWithoutHandle
}

// contentIsDeleting tells whether the content is on its way out.
func (s *Observed) contentIsDeleting() bool { return s.Content.Object.GetDeletionTimestamp() != nil }

// hasNodeAffinity tells whether one of the volumes is in some places only. One that can be
// used everywhere is cut by a driver that works for all nodes.
func (s *Observed) hasNodeAffinity() bool {
	return slices.ContainsFunc(s.Sources, func(one snapshot.Source) bool { return one.HasNodeAffinity() })
}

// describeVolumes names what is to be cut.
func (s *Observed) describeVolumes() string {
	var names []string
	for i := range s.Sources {
		names = append(names, s.Sources[i].Volume.Name)
	}
	if len(names) == 1 {
		return "volume " + names[0]
	}
	return "all of the volumes " + strings.Join(names, ", ")
}

// driver is the name of the snapshot's driver; empty if it is not known.
func (s *Observed) driver() string {
	switch {
	case s.Content != nil:
		return s.Content.Driver
	case s.Class != nil:
		return s.Class.Driver
	default:
		return ""
	}
}

// hasFinalizer tells whether a snapshot is kept by us.
func (k *KindInfo) hasFinalizer(of *Snapshot) bool {
	return slices.ContainsFunc(of.Object.GetFinalizers(), func(f string) bool { return slices.Contains(k.OwnFinalizers, f) })
}

// capitalizedNoun is the noun at the beginning of a sentence.
func (k *KindInfo) capitalizedNoun() string { return strings.ToUpper(k.Noun[:1]) + k.Noun[1:] }
