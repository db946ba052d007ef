package controller

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

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

// observe reads a snapshot, and what its kind wants to be sure of, from the given
// source and all else from the cache.
func (r *Reconciler) observe(ctx context.Context, from client.Reader, key client.ObjectKey) (*Observed, error) {
	s := &Observed{ObservedAt: r.now()}
	o := r.kind.EmptySnapshot()
	if there, err := read(ctx, from, key, o); err != nil || !there {
		return s, err
	}
	s.Snapshot = r.kind.ReadSnapshot(o)
	if err := r.readContent(ctx, r.client, s); err != nil {
		return nil, err
	}
	if s.isDeleting() {
		return s, r.observeDeletion(ctx, from, s)
	}
	if s.isPreProvisioned() || s.Content != nil || s.Snapshot.IsMember {
		return s, nil
	}
	return s, r.observeSources(ctx, from, s)
}

// observeDeletion reads what keeps a snapshot that is being deleted.
func (r *Reconciler) observeDeletion(ctx context.Context, from client.Reader, s *Observed) (err error) {
	if s.DeletionBlocker, err = r.kind.DeletionBlocker(ctx, from, s.Snapshot); err != nil || !s.isBound() || !s.contentIsDeleting() {
		return err
	}
	s.Stranded, err = r.isNodeGone(ctx, r.client, s.Content)
	return err
}

// readContent reads the snapshot's content.
func (r *Reconciler) readContent(ctx context.Context, from client.Reader, s *Observed) error {
	s.Content = nil
	o := r.kind.EmptyContent()
	there, err := read(ctx, from, client.ObjectKey{Name: s.Snapshot.ContentName}, o)
	if there {
		s.Content = r.kind.ReadContent(o)
	}
	return err
}

// read reads an object, and tells whether it is there.
func read(ctx context.Context, from client.Reader, key client.ObjectKey, into client.Object) (bool, error) {
	err := from.Get(ctx, key, into)
	switch {
	case err == nil:
		return true, nil
	case client.IgnoreNotFound(err) == nil:
		return false, nil
	default:
		return false, fmt.Errorf("reading %T %s: %w", into, key, err)
	}
}

// observeSources reads what a content is made from. Where something is wrong with
// that, nothing else matters.
func (r *Reconciler) observeSources(ctx context.Context, from client.Reader, s *Observed) (err error) {
	if s.Sources, err = r.kind.Sources(ctx, from, s.Snapshot); err != nil || r.kind.Validate(s.Snapshot, s.Sources) != nil {
		return err
	}
	if err := r.observeClass(ctx, s); err != nil || !r.options.Distributed || !s.hasNodeAffinity() {
		return err
	}
	return r.observeNodes(ctx, s)
}

func (r *Reconciler) observeClass(ctx context.Context, s *Observed) (err error) {
	if s.Snapshot.Class != "" {
		s.Class, err = r.kind.GetClass(ctx, s.Snapshot.Class)
		return err
	}
	all, err := r.kind.ListClasses(ctx)
	if err != nil {
		return fmt.Errorf("listing %ses: %w", r.Class, err)
	}
	for _, class := range all {
		if class.Default && class.Driver == s.Sources[0].Volume.Spec.CSI.Driver {
			s.Class, s.DefaultClasses = class, append(s.DefaultClasses, class.Name)
		}
	}
	slices.Sort(s.DefaultClasses)
	return nil
}

// observeNodes finds the nodes on which all volumes can be used that cannot be used
// everywhere.
func (r *Reconciler) observeNodes(ctx context.Context, s *Observed) error {
	first := true
	for i := range s.Sources {
		if !s.Sources[i].HasNodeAffinity() {
			continue
		}
		nodes, err := snapshot.NodesOf(ctx, r.client, s.Sources[i].Volume)
		if err != nil {
			return err
		}
		if first {
			s.Nodes, first = nodes, false
		}
		s.Nodes = slices.DeleteFunc(s.Nodes, func(n string) bool { return !slices.Contains(nodes, n) })
	}
	return nil
}
