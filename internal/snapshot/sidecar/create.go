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
func (r *Reconciler) create(ctx context.Context, s *seen) (time.Duration, error) {
	first := !r.marked(s)
	request, err := r.request(ctx, s)
	if err != nil {
		return 0, err
	}
	made, err := r.kind.Create(ctx, r.driver, *request)
	if err != nil {
		return 0, r.notMade(ctx, s, request, answer{err, first})
	}
	if err := r.report(ctx, s, made); err != nil {
		return 0, err
	}
	return r.settled(ctx, s, made.Ready)
}

// settled takes the mark off, and comes back to a snapshot that is not ready.
func (r *Reconciler) settled(ctx context.Context, s *seen, ready bool) (time.Duration, error) {
	if err := r.settle(ctx, s); err != nil || ready {
		return 0, err
	}
	return r.pause(s), nil
}

// request prepares the call and puts it on record.
func (r *Reconciler) request(ctx context.Context, s *seen) (*Request, error) {
	a, err := r.ask(s)
	if err != nil {
		return nil, err
	}
	secrets, err := r.secrets(ctx, s)
	if err != nil {
		return nil, err
	}
	if err := r.mark(ctx, s, a); err != nil {
		return nil, err
	}
	return &Request{Name: a.Name, Volumes: s.Volumes, Parameters: a.Parameters, Secrets: secrets}, nil
}

// follow asks the driver how far the snapshot is, by reading it where the driver
// can do that.
func (r *Reconciler) follow(ctx context.Context, s *seen) (time.Duration, error) {
	now, err := r.read(ctx, s)
	if err != nil {
		return 0, err
	}
	if err := r.report(ctx, s, now); err != nil || now.Ready {
		return 0, err
	}
	return r.pause(s), nil
}

// read finds out how far a snapshot is. Where it cannot be read the driver is
// asked for it again, as it always is by upstream's program: a class that has
// served that may name no secret for reading, or one that is not there. A snapshot
// that was there before its content is taken as ready where the driver cannot
// read, for nobody can tell otherwise; of a member of a group nothing is said.
func (r *Reconciler) read(ctx context.Context, s *seen) (*Snapshot, error) {
	now, err := r.get(ctx, s)
	cannot := codeOf(err) == codes.Unimplemented
	switch {
	case err == nil:
		return now, nil
	case cannot && len(s.Volumes) == 0:
		return &Snapshot{Handle: s.handle(), Ready: true}, nil
	case cannot && s.Member != "":
		return &Snapshot{Handle: s.handle(), Ready: s.Ready}, nil // Its group's content tells.
	case s.Member == "" && len(s.Volumes) > 0 && unreadable(err):
		return r.askAgain(ctx, s.Object.GetName())
	default:
		return nil, err
	}
}

func (r *Reconciler) get(ctx context.Context, s *seen) (*Snapshot, error) {
	secrets, err := r.readerSecrets(ctx, s)
	if err != nil {
		return nil, err
	}
	return r.kind.Get(ctx, r.driver, &s.Content, secrets)
}

// unreadable tells whether a snapshot could not be read for a reason that says
// nothing of the snapshot: what is needed for reading is missing, the driver
// refuses to, or it answers about something else. One that the driver does not know
// must not be asked for: it would be made anew.
func unreadable(err error) bool {
	var problem *snapshot.Problem
	var bad *csi.InvalidResponse
	return errors.As(err, &problem) || errors.As(err, &bad) || csi.OutcomeOf(err).Final() && codeOf(err) != codes.NotFound
}

// codeOf is the code of a driver's answer; OK if the error is none.
func codeOf(err error) codes.Code {
	var answer *csi.Error
	if !errors.As(err, &answer) {
		return codes.OK
	}
	return answer.Code
}

// askAgain follows a snapshot that cannot be read. It would be made again if it
// had been deleted, so the content must be there, in the API server itself.
func (r *Reconciler) askAgain(ctx context.Context, name string) (*Snapshot, error) {
	s, err := r.observe(ctx, r.live, name)
	if err != nil {
		return nil, err
	}
	if s == nil || r.decide(s).action != follow {
		return nil, kube.Conflict("content %s is on its way out", name)
	}
	a, err := r.ask(s)
	if err != nil {
		return nil, err
	}
	secrets, err := r.secrets(ctx, s)
	if err != nil {
		return nil, err
	}
	made, err := r.kind.Create(ctx, r.driver, Request{Name: a.Name, Volumes: s.Volumes, Parameters: a.Parameters, Secrets: secrets})
	if err == nil && made.Handle != s.Handle {
		return nil, snapshot.Problemf(r.kind.Reasons().Follow, "the driver has lost snapshot %s: asked for it again, under the name %s, it has made %s; delete one of them at the driver",
			s.Handle, a.Name, made.Handle)
	}
	return made, err
}

// secrets are those for creating and deleting: the cluster's half has resolved
// them when it made the content.
func (r *Reconciler) secrets(ctx context.Context, s *seen) (map[string]string, error) {
	values, err := kube.SecretData(ctx, r.live, r.marks.SecretOf(s.Object.GetAnnotations()))
	return values, absent(err, r.kind.Reasons().Create)
}

// readerSecrets are those for reading: the class's, but the group's own for its
// members.
func (r *Reconciler) readerSecrets(ctx context.Context, s *seen) (map[string]string, error) {
	if s.Member != "" {
		return r.secrets(ctx, s)
	}
	ref, err := r.kind.Reader(s.class, s.Object.GetName())
	if err != nil {
		return nil, snapshot.Problemf(r.kind.Reasons().Follow, "class %s: %v", s.Class, err)
	}
	values, err := kube.SecretData(ctx, r.live, ref)
	return values, absent(err, r.kind.Reasons().Follow)
}

// Pauses between two questions how far a snapshot is.
const (
	shortest = 200 * time.Millisecond
	longest  = 10 * time.Second
)

// pause is how long to wait before the driver is asked again: a tenth of what it
// has taken so far, within bounds. So a quick driver's snapshot is seen at once
// and a slow one's is not asked for all the time, and nothing has to be
// remembered.
func (r *Reconciler) pause(s *seen) time.Duration {
	return min(longest, max(shortest, r.now().Sub(s.Object.GetCreationTimestamp().Time)/10))
}

// absent makes a missing secret the user's problem.
func absent(err error, reason string) error {
	if isNotFound(err) {
		return snapshot.Problemf(reason, "%v: the driver cannot be asked without it", err)
	}
	if err != nil {
		return fmt.Errorf("preparing what to ask the driver for: %w", err)
	}
	return nil
}
