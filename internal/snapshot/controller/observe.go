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
	s := &Observed{At: r.now()}
	o := r.kind.New()
	if there, err := read(ctx, from, key, o); err != nil || !there {
		return s, err
	}
	s.Snapshot = r.kind.Read(o)
	if err := r.readContent(ctx, r.client, s); err != nil {
		return nil, err
	}
	if s.deleting() {
		return s, r.observeEnd(ctx, from, s)
	}
	if s.static() || s.Content != nil || s.Snapshot.Member {
		return s, nil
	}
	return s, r.observeSources(ctx, from, s)
}

// observeEnd reads what keeps a snapshot that is being deleted.
func (r *Reconciler) observeEnd(ctx context.Context, from client.Reader, s *Observed) (err error) {
	if s.Users, err = r.kind.Users(ctx, from, s.Snapshot); err != nil || !s.bound() || !s.leaves() {
		return err
	}
	s.Stranded, err = r.isStranded(ctx, r.client, s.Content)
	return err
}

// readContent reads the snapshot's content.
func (r *Reconciler) readContent(ctx context.Context, from client.Reader, s *Observed) error {
	s.Content = nil
	o := r.kind.NewContent()
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
	if s.Sources, err = r.kind.Sources(ctx, from, s.Snapshot); err != nil || r.kind.Check(s.Snapshot, s.Sources) != nil {
		return err
	}
	if err := r.observeClass(ctx, s); err != nil || !r.options.Distributed || !s.placed() {
		return err
	}
	return r.observeNodes(ctx, s)
}

func (r *Reconciler) observeClass(ctx context.Context, s *Observed) (err error) {
	if s.Snapshot.Class != "" {
		s.Class, err = r.kind.Class(ctx, s.Snapshot.Class)
		return err
	}
	all, err := r.kind.Classes(ctx)
	if err != nil {
		return fmt.Errorf("listing %ses: %w", r.Class, err)
	}
	for _, class := range all {
		if class.Default && class.Driver == s.Sources[0].Volume.Spec.CSI.Driver {
			s.Class, s.Defaults = class, append(s.Defaults, class.Name)
		}
	}
	slices.Sort(s.Defaults)
	return nil
}

// observeNodes finds the nodes on which all volumes can be used that cannot be used
// everywhere.
func (r *Reconciler) observeNodes(ctx context.Context, s *Observed) error {
	first := true
	for i := range s.Sources {
		if !s.Sources[i].Placed() {
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
