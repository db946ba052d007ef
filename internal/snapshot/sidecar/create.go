package sidecar

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// create asks the driver for the snapshot: first the record, then the call, then
// what came of it.
func (r *Reconciler) create(ctx context.Context, s *state) (time.Duration, error) {
	first := !r.isBeingCreated(s)
	request, err := r.prepareRequest(ctx, s)
	if err != nil {
		return 0, err
	}
	made, err := r.kind.Create(ctx, r.driver, *request)
	if err != nil {
		return 0, r.handleCreateFailure(ctx, s, request, createFailure{err, first})
	}
	if err := r.writeStatus(ctx, s, made); err != nil {
		return 0, err
	}
	return r.finishCreate(ctx, s, made.Ready)
}

// finishCreate takes the mark off, and comes back to a snapshot that is not ready.
func (r *Reconciler) finishCreate(ctx context.Context, s *state, ready bool) (time.Duration, error) {
	if err := r.clearBeingCreated(ctx, s); err != nil || ready {
		return 0, err
	}
	return r.pollInterval(s), nil
}

// prepareRequest prepares the call and puts it on record.
func (r *Reconciler) prepareRequest(ctx context.Context, s *state) (*Request, error) {
	record, err := r.chooseRequest(s)
	if err != nil {
		return nil, err
	}
	secrets, err := r.secrets(ctx, s)
	if err != nil {
		return nil, err
	}
	if err := r.recordRequest(ctx, s, record); err != nil {
		return nil, err
	}
	return &Request{Name: record.Name, Volumes: s.Volumes, Parameters: record.Parameters, Secrets: secrets}, nil
}

// poll asks the driver how far the snapshot is, by reading it where the driver
// can do that.
func (r *Reconciler) poll(ctx context.Context, s *state) (time.Duration, error) {
	made, err := r.readSnapshot(ctx, s)
	if err != nil {
		return 0, err
	}
	if err := r.writeStatus(ctx, s, made); err != nil || made.Ready {
		return 0, err
	}
	return r.pollInterval(s), nil
}

// readSnapshot finds out how far a snapshot is. Where it cannot be read the driver is
// asked for it again, as it always is by upstream's program: a class that has
// served that may name no secret for reading, or one that is not there. A snapshot
// that was there before its content is taken as ready where the driver cannot
// read, for nobody can tell otherwise; of a member of a group nothing is said.
func (r *Reconciler) readSnapshot(ctx context.Context, s *state) (*Snapshot, error) {
	made, err := r.getSnapshot(ctx, s)
	unimplemented := codeOf(err) == codes.Unimplemented
	switch {
	case err == nil:
		return made, nil
	case unimplemented && len(s.Volumes) == 0:
		return &Snapshot{Handle: s.handle(), Ready: true}, nil
	case unimplemented && s.GroupHandle != "":
		return &Snapshot{Handle: s.handle(), Ready: s.Ready}, nil // Its group's content tells.
	case s.GroupHandle == "" && len(s.Volumes) > 0 && isUnreadable(err):
		return r.repeatCreate(ctx, s.Object.GetName())
	default:
		return nil, err
	}
}

func (r *Reconciler) getSnapshot(ctx context.Context, s *state) (*Snapshot, error) {
	secrets, err := r.readSecrets(ctx, s)
	if err != nil {
		return nil, err
	}
	return r.kind.Get(ctx, r.driver, &s.Content, secrets)
}

// isUnreadable tells whether a snapshot could not be read for a reason that says
// nothing of the snapshot: what is needed for reading is missing, the driver
// refuses to, or it answers about something else. One that the driver does not know
// must not be asked for: it would be made anew.
func isUnreadable(err error) bool {
	var problem *snapshot.Problem
	var bad *csi.InvalidResponse
	return errors.As(err, &problem) || errors.As(err, &bad) || csi.OutcomeOf(err).Final() && codeOf(err) != codes.NotFound
}

// codeOf is the code of a driver's answer; OK if the error is none.
func codeOf(err error) codes.Code {
	var driverErr *csi.Error
	if !errors.As(err, &driverErr) {
		return codes.OK
	}
	return driverErr.Code
}

// repeatCreate follows a snapshot that cannot be read. It would be made again if it
// had been deleted, so the content must be there, in the API server itself.
func (r *Reconciler) repeatCreate(ctx context.Context, name string) (*Snapshot, error) {
	s, err := r.observe(ctx, r.apiReader, name)
	if err != nil {
		return nil, err
	}
	if s == nil || r.decide(s).action != poll {
		return nil, kube.Conflict("content %s is on its way out", name)
	}
	record, err := r.chooseRequest(s)
	if err != nil {
		return nil, err
	}
	secrets, err := r.secrets(ctx, s)
	if err != nil {
		return nil, err
	}
	made, err := r.kind.Create(ctx, r.driver, Request{Name: record.Name, Volumes: s.Volumes, Parameters: record.Parameters, Secrets: secrets})
	if err == nil && made.Handle != s.Handle {
		return nil, snapshot.Problemf(r.kind.Reasons().Check, "the driver has lost snapshot %s: asked for it again, under the name %s, it has made %s; delete one of them at the driver",
			s.Handle, record.Name, made.Handle)
	}
	return made, err
}

// secrets are those for creating and deleting: the cluster's half has resolved
// them when it made the content.
func (r *Reconciler) secrets(ctx context.Context, s *state) (map[string]string, error) {
	values, err := kube.SecretData(ctx, r.apiReader, r.keys.SecretOf(s.Object.GetAnnotations()))
	return values, secretError(err, r.kind.Reasons().Create)
}

// readSecrets are those for reading: the class's, but the group's own for its
// members.
func (r *Reconciler) readSecrets(ctx context.Context, s *state) (map[string]string, error) {
	if s.GroupHandle != "" {
		return r.secrets(ctx, s)
	}
	ref, err := r.kind.ReadSecret(s.class, s.Object.GetName())
	if err != nil {
		return nil, snapshot.Problemf(r.kind.Reasons().Check, "class %s: %v", s.Class, err)
	}
	values, err := kube.SecretData(ctx, r.apiReader, ref)
	return values, secretError(err, r.kind.Reasons().Check)
}

// Pauses between two questions how far a snapshot is.
const (
	minPollInterval = 200 * time.Millisecond
	maxPollInterval = 10 * time.Second
)

// pollInterval is how long to wait before the driver is asked again: a tenth of what it
// has taken so far, within bounds. So a quick driver's snapshot is seen at once
// and a slow one's is not asked for all the time, and nothing has to be
// remembered.
func (r *Reconciler) pollInterval(s *state) time.Duration {
	return min(maxPollInterval, max(minPollInterval, r.now().Sub(s.Object.GetCreationTimestamp().Time)/10))
}

// secretError makes a missing secret the user's problem.
func secretError(err error, reason string) error {
	if isNotFound(err) {
		return snapshot.Problemf(reason, "%v: the driver cannot be asked without it", err)
	}
	if err != nil {
		return fmt.Errorf("preparing what to ask the driver for: %w", err)
	}
	return nil
}
