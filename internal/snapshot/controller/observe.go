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

// Observed is the observed state of one snapshot, and of what it depends on, at one
// moment.
type Observed struct {
	Snapshot        *Snapshot         // nil if it is gone
	Content         *Content          // its content; nil if there is none
	Class           *snapshot.Class   // nil if it names none, or there is no such class
	DefaultClasses  []string          // the default classes of the volumes' driver, if it names no class
	Sources         []snapshot.Source // the claims to take it of
	Nodes           []string          // the nodes that can use all of the volumes, with --enable-distributed-snapshotting
	DeletionBlocker *snapshot.Problem // why it cannot be deleted yet, if it is being deleted
	Stranded        bool              // its content is being deleted, and the node whose csi-snapshotter must do that is gone
	ObservedAt      time.Time         // when the observation began
}

// isPreProvisioned reports whether the snapshot names a content, instead of claims.
func (s *Observed) isPreProvisioned() bool { return s.Snapshot.PreProvisionedContent != "" }

func (s *Observed) isDeleting() bool { return s.Snapshot.Object.GetDeletionTimestamp() != nil }

// isReferencedByContent reports whether the content's reference is to this snapshot. A
// reference without a UID is to any snapshot of that name.
func (s *Observed) isReferencedByContent() bool {
	o := s.Snapshot.Object
	return snapshot.RefersTo(s.Content.Ref, o.GetNamespace(), o.GetName(), o.GetUID())
}

// isBound reports whether the content exists and is bound to this snapshot, by UID.
func (s *Observed) isBound() bool {
	return s.Content != nil && s.Content.Ref.UID == s.Snapshot.Object.GetUID() && s.isReferencedByContent()
}

// contentIsRetained reports whether the content stays when the snapshot is deleted.
func (s *Observed) contentIsRetained() bool {
	return s.Content.Retain && !s.Content.MemberWithoutHandle
}

// contentIsDeleting reports whether the content is being deleted.
func (s *Observed) contentIsDeleting() bool { return s.Content.Object.GetDeletionTimestamp() != nil }

// contentErrorIsCurrent reports whether the content's error is about its deletion: an older
// one is about the creation of the snapshot.
func (s *Observed) contentErrorIsCurrent() bool {
	e, deleted := s.Content.Error, s.Content.Object.GetDeletionTimestamp()
	return errorMessage(e) != "" && (e.Time == nil || deleted == nil || !e.Time.Before(deleted))
}

// hasNodeAffinity reports whether only some nodes can use one of the volumes. The
// snapshot of a volume that every node can use needs no particular csi-snapshotter.
func (s *Observed) hasNodeAffinity() bool {
	return slices.ContainsFunc(s.Sources, func(one snapshot.Source) bool { return one.HasNodeAffinity() })
}

// describeVolumes names the volumes in a message.
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

// driver is the name of the CSI driver; empty if it is not known.
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

// observe reads the state of a snapshot. The snapshot, and what its kind cannot take from
// a cache, come from the given reader, the rest from the cache.
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

// observeDeletion reads what delays the deletion of a snapshot.
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

// read reads an object, and reports whether it exists.
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

// observeSources reads what is needed to create a content. It stops at the first thing
// that is wrong, because only that is reported.
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

// observeNodes finds the nodes that can use all of the volumes that have a node affinity.
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
