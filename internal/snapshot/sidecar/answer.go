package sidecar

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/internal/csi"
)

// This file is about answers to a request for a snapshot that are none. That nothing
// was made is known if the very first call is refused, or if what it made was deleted
// again; or if the driver's list of snapshots shows it.

// An answer is why there is no snapshot yet.
type answer struct {
	err error
	// first says that the driver had not been asked before.
	first bool
}

// notMade acts on an answer that is no snapshot: the mark comes off if nothing was
// made, so that the content can go, and stays if that is not known. It returns the
// error to tell. The record of what was asked for stays in either case, for a try
// without the class.
func (r *Reconciler) notMade(ctx context.Context, s *seen, asked *Request, a answer) error {
	known, err := r.nothing(ctx, s, asked, a)
	if err != nil {
		return errors.Join(a.err, err)
	}
	if known {
		return errors.Join(a.err, r.settle(ctx, s))
	}
	return errors.Join(r.open(s, asked, a), r.remark(ctx, s, r.refusing(s, a)))
}

// nothing tells whether it is known that nothing is at the driver. What cannot be used
// is deleted for that.
func (r *Reconciler) nothing(ctx context.Context, s *seen, asked *Request, a answer) (bool, error) {
	var bad *csi.InvalidResponse
	if errors.As(a.err, &bad) && bad.ID != "" {
		// Nobody can use it: it was created under this content's name, and no content has its handle.
		err := r.kind.Discard(ctx, r.driver.WithPrecondition(csi.Unconditional), bad, asked.Secrets)
		return err == nil, err
	}
	if a.first && csi.OutcomeOf(a.err).Final() {
		return true, nil
	}
	if since := refusedSince(&s.Content); !csi.Answered(a.err) || since.IsZero() || r.now().Sub(since) < r.driver.SettleTime() {
		return false, nil
	}
	found, err := r.lookFor(ctx, s, asked)
	return found.absent, err
}

// refusing is since when the driver has given the same kind of answer, which says
// nothing about an earlier call; zero if this answer is none of that kind.
func (r *Reconciler) refusing(s *seen, a answer) time.Time {
	switch since := refusedSince(&s.Content); {
	case !csi.Answered(a.err):
		return time.Time{}
	case since.IsZero():
		return r.now()
	default:
		return since
	}
}

// open says that there may be a snapshot in spite of an answer, and under which name.
func (r *Reconciler) open(s *seen, asked *Request, a answer) error {
	if !csi.Answered(a.err) {
		return a.err
	}
	return fmt.Errorf("%w; the driver may have made %s %s of %s all the same: it is asked for again; to end that make sure that there is none and take annotation %s off %s %s",
		a.err, r.kind.Name(), asked.Name, strings.Join(s.Volumes, ", "), r.marks.BeingCreated, r.marks.Content, s.Object.GetName())
}

// whereabouts is what the driver's list says about a snapshot. The zero value is that
// it says nothing.
type whereabouts struct {
	handle string // of the snapshot, if its id has the name in it
	absent bool   // there is none
}

// lookFor looks for a snapshot in the driver's list of those of its volume.
func (r *Reconciler) lookFor(ctx context.Context, s *seen, asked *Request) (whereabouts, error) {
	ids, ok, err := r.kind.List(ctx, r.driver, &s.Content, asked.Secrets)
	if err != nil || !ok {
		return whereabouts{}, err
	}
	list := r.kind.NewList()
	if err := r.live.List(ctx, list); err != nil {
		return whereabouts{}, fmt.Errorf("listing the contents: %w", err)
	}
	return locate(asked.Name, string(s.Ref.UID), ids, r.handles(list)), nil
}

// locate tells where the snapshot of a name is, by the ids that the driver lists for
// its volume and those that contents have. One whose id was made from the name is it.
// It is absent if every listed id is some content's.
func locate(name, uid string, listed []string, known map[string]bool) whereabouts {
	strangers := false
	for _, id := range listed {
		switch {
		case known[id]:
		case csi.DerivedFrom(id, name, uid):
			return whereabouts{handle: id}
		default:
			strangers = true
		}
	}
	return whereabouts{absent: !strangers}
}
