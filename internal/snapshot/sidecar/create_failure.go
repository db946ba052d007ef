package sidecar

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/internal/csi"
)

// A failed CreateSnapshot does not prove that the driver created nothing. That is certain
// only if the first call fails with a final code, if the snapshot of an invalid response
// was deleted, or if ListSnapshots does not show the snapshot.

// A createFailure is a failed call to create a snapshot.
type createFailure struct {
	err error
	// firstCall is set if no earlier call can have created the snapshot.
	firstCall bool
}

// handleCreateFailure removes the being-created annotation if the driver created nothing,
// so that the content can be deleted, and keeps it if that is unknown. It returns the error
// to report. The recorded request stays in both cases, for retries after the class is gone.
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

// nothingCreated reports whether the driver certainly has no snapshot. It deletes the
// snapshot of an invalid response first.
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

// nextRejectedSince returns since when the driver has rejected the request with codes that
// say nothing about an earlier call. It returns zero if this error has no such code.
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

// unresolvedError adds to the error that the driver may have created the snapshot, and its
// name.
func (r *Reconciler) unresolvedError(s *state, request *Request, e createFailure) error {
	if !csi.Responded(e.err) {
		return e.err
	}
	return fmt.Errorf("%w; the driver may have created %s %s of %s nevertheless, so the call is repeated; to stop that, make sure that it does not exist and remove annotation %s from %s %s",
		e.err, r.kind.Name(), request.Name, strings.Join(s.Volumes, ", "), r.keys.BeingCreated, r.keys.Content, s.Object.GetName())
}

// A listResult is what ListSnapshots says about a snapshot. The zero value means that the
// list does not tell.
type listResult struct {
	handle string // of the snapshot, if its id is derived from the name
	absent bool   // the snapshot does not exist
}

// findInList searches the snapshot in the driver's list of the volume's snapshots.
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

// matchListed finds the snapshot with the given name among the ids that the driver lists for
// its volume. It is the one whose id is derived from the name. It is absent if a content
// refers to each listed id.
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
