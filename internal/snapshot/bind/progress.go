package bind

import (
	"context"

	"github.com/holdfast-io/holdfast/internal/snapshot"
)

func (r *Reconciler) progress(s *Seen) snapshot.Progress {
	p := r.Progress(s.Snapshot)
	p.Driver = s.driver()
	return p
}

// Progress is how far a snapshot is, as it says itself.
func (w *Words) Progress(s *Snapshot) snapshot.Progress {
	return snapshot.Progress{Object: s.Object, Operations: w.Operations, Given: s.Given != "", Cut: s.Cut, Ready: s.Ready}
}

// ended measures what has ended with a snapshot that was let go.
func (r *Reconciler) ended(ctx context.Context, s *Seen) {
	if s.Content == nil && s.Snapshot.Class != "" {
		s.Class, _ = r.kind.Class(ctx, s.Snapshot.Class) // Without it the driver is unknown.
	}
	r.waits.Ended(r.progress(s))
}
