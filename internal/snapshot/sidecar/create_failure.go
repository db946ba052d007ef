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

// A createFailure is why there is no snapshot yet.
type createFailure struct {
	err error
	// firstCall says that the driver had not been asked before.
	firstCall bool
}

// handleCreateFailure acts on an answer that is no snapshot: the mark comes off if nothing was
// made, so that the content can go, and stays if that is not known. It returns the
// error to tell. The record of what was asked for stays in either case, for a try
// without the class.
func (r *Reconciler) handleCreateFailure(ctx context.Context, s *state, request *Request, e createFailure) error {
	nothing, err := r.nothingCreated(ctx, s, request, e)
	if err != nil {
		return errors.Join(e.err, err)
	}
	if nothing {
		return errors.Join(e.err, r.clearBeingCreated(ctx, s))
	}
	return errors.Join(r.unresolvedError(s, request, e), r.renewRecord(ctx, s, r.nextRejectedSince(s, e)))
}

// nothingCreated tells whether it is known that nothing is at the driver. What cannot be used
// is deleted for that.
func (r *Reconciler) nothingCreated(ctx context.Context, s *state, request *Request, e createFailure) (bool, error) {
	var bad *csi.InvalidResponse
	if errors.As(e.err, &bad) && bad.ID != "" {
		// Nobody can use it: it was created under this content's name, and no content has its handle.
		err := r.kind.Discard(ctx, r.driver.WithPrecondition(csi.Unconditional), bad, request.Secrets)
		return err == nil, err
	}
	if e.firstCall && csi.OutcomeOf(e.err).Final() {
		return true, nil
	}
	if since := rejectedSince(&s.Content); !csi.Responded(e.err) || since.IsZero() || r.now().Sub(since) < r.driver.SettleTime() {
		return false, nil
	}
	found, err := r.findInList(ctx, s, request)
	return found.absent, err
}

// nextRejectedSince is since when the driver has given the same kind of answer, which says
// nothing about an earlier call; zero if this answer is none of that kind.
func (r *Reconciler) nextRejectedSince(s *state, e createFailure) time.Time {
	switch since := rejectedSince(&s.Content); {
	case !csi.Responded(e.err):
		return time.Time{}
	case since.IsZero():
		return r.now()
	default:
		return since
	}
}

// unresolvedError says that there may be a snapshot in spite of an answer, and under which name.
func (r *Reconciler) unresolvedError(s *state, request *Request, e createFailure) error {
	if !csi.Responded(e.err) {
		return e.err
	}
	return fmt.Errorf("%w; the driver may have made %s %s of %s all the same: it is asked for again; to end that make sure that there is none and take annotation %s off %s %s",
		e.err, r.kind.Name(), request.Name, strings.Join(s.Volumes, ", "), r.keys.BeingCreated, r.keys.Content, s.Object.GetName())
}

// listResult is what the driver's list says about a snapshot. The zero value is that
// it says nothing.
type listResult struct {
	handle string // of the snapshot, if its id has the name in it
	absent bool   // there is none
}

// findInList looks for a snapshot in the driver's list of those of its volume.
func (r *Reconciler) findInList(ctx context.Context, s *state, request *Request) (listResult, error) {
	ids, ok, err := r.kind.ListIDs(ctx, r.driver, &s.Content, request.Secrets)
	if err != nil || !ok {
		return listResult{}, err
	}
	list := r.kind.NewList()
	if err := r.apiReader.List(ctx, list); err != nil {
		return listResult{}, fmt.Errorf("listing the contents: %w", err)
	}
	return matchListed(request.Name, string(s.Ref.UID), ids, r.knownHandles(list)), nil
}

// matchListed tells where the snapshot of a name is, by the ids that the driver lists for
// its volume and those that contents have. One whose id was made from the name is it.
// It is absent if every listed id is some content's.
func matchListed(name, uid string, listed []string, known map[string]bool) listResult {
	unknown := false
	for _, id := range listed {
		switch {
		case known[id]:
		case csi.DerivedFrom(id, name, uid):
			return listResult{handle: id}
		default:
			unknown = true
		}
	}
	return listResult{absent: !unknown}
}
