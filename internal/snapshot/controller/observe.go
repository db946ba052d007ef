package controller

import (
	"context"
	"fmt"
	"slices"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/snapshot"
)

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
