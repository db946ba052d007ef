package controller

import (
	"context"

	"github.com/holdfast-io/holdfast/internal/snapshot"
)

func (r *Reconciler) progress(s *Observed) snapshot.Progress {
	p := r.Progress(s.Snapshot)
	p.Driver = s.driver()
	return p
}

// Progress is how far a snapshot is, as it says itself.
func (k *KindInfo) Progress(s *Snapshot) snapshot.Progress {
	return snapshot.Progress{Object: s.Object, Operations: k.Operations, PreProvisioned: s.PreProvisionedContent != "", Created: s.Created, Ready: s.Ready}
}

// recordDeletion measures what has ended with a snapshot that was let go.
func (r *Reconciler) recordDeletion(ctx context.Context, s *Observed) {
	if s.Content == nil && s.Snapshot.Class != "" {
		s.Class, _ = r.kind.GetClass(ctx, s.Snapshot.Class) // Without it the driver is unknown.
	}
	r.durations.ObserveDeletion(r.progress(s))
}
