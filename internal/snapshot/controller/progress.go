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
func (w *KindInfo) Progress(s *Snapshot) snapshot.Progress {
	return snapshot.Progress{Object: s.Object, Operations: w.Operations, PreProvisioned: s.PreProvisioned != "", Created: s.Created, Ready: s.Ready}
}

// ended measures what has ended with a snapshot that was let go.
func (r *Reconciler) ended(ctx context.Context, s *Observed) {
	if s.Content == nil && s.Snapshot.Class != "" {
		s.Class, _ = r.kind.Class(ctx, s.Snapshot.Class) // Without it the driver is unknown.
	}
	r.waits.Ended(r.progress(s))
}
