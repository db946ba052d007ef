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

// create records the request, calls the driver, and writes the result to the status.
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

// finishCreate removes the being-created annotation. It returns when to poll a snapshot that
// is not ready.
func (r *Reconciler) finishCreate(ctx context.Context, s *state, ready bool) (time.Duration, error) {
	if err := r.clearBeingCreated(ctx, s); err != nil || ready {
		return 0, err
	}
	return r.pollInterval(s), nil
}

// prepareRequest prepares the request and records it on the content.
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

// poll updates the status from the driver until the snapshot is ready.
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

// readSnapshot gets the snapshot's state from the driver. If reading fails, it repeats
// CreateSnapshot, as upstream always does: classes that work with upstream may name no
// secret for reading, or one that does not exist. If the driver cannot read snapshots, a
// pre-provisioned one counts as ready, because nothing else is known about it, unless the
// driver could be asked before. A group member keeps its state.
func (r *Reconciler) readSnapshot(ctx context.Context, s *state) (*Snapshot, error) {
	made, err := r.getSnapshot(ctx, s)
	switch {
	case err == nil:
		return made, nil
	case csi.CodeOf(err) == codes.Unimplemented && (len(s.Volumes) == 0 || s.GroupHandle != ""):
		return r.assumeSnapshot(s, err)
	case s.GroupHandle == "" && len(s.Volumes) > 0 && isUnreadable(err):
		return r.repeatCreate(ctx, s.Object.GetName())
	default:
		return nil, err
	}
}

// assumeSnapshot returns the state of a snapshot that the driver cannot read and did not create
// alone.
func (r *Reconciler) assumeSnapshot(s *state, unimplemented error) (*Snapshot, error) {
	switch {
	case s.GroupHandle == "" && s.Handle != "":
		return nil, snapshot.Problemf(r.kind.Reasons().Check, "%v: snapshot %s was not ready when the driver could still be asked", unimplemented, s.handle())
	case len(s.Volumes) == 0:
		return &Snapshot{Handle: s.handle(), Ready: true}, nil
	default:
		return &Snapshot{Handle: s.handle(), Ready: s.Ready}, nil // The state comes with the group's content.
	}
}

func (r *Reconciler) getSnapshot(ctx context.Context, s *state) (*Snapshot, error) {
	secrets, err := r.readSecrets(ctx, s)
	if err != nil {
		return nil, err
	}
	return r.kind.Get(ctx, r.driver, &s.Content, secrets)
}

// isUnreadable reports whether reading failed for a reason that says nothing about the
// snapshot: a secret is missing, the driver rejects the call, or the response is about
// something else. NotFound is none of these: CreateSnapshot would create another snapshot.
func isUnreadable(err error) bool {
	var problem *snapshot.Problem
	var bad *csi.InvalidResponse
	return errors.As(err, &problem) || errors.As(err, &bad) || csi.OutcomeOf(err).Final() && csi.CodeOf(err) != codes.NotFound
}

// repeatCreate repeats CreateSnapshot to get the state of a snapshot that cannot be read. If
// this controller had deleted the snapshot, the call would create another one. So it reads
// the content from the API server first.
func (r *Reconciler) repeatCreate(ctx context.Context, name string) (*Snapshot, error) {
	s, err := r.observe(ctx, r.apiReader, name)
	if err != nil {
		return nil, err
	}
	if s == nil || r.decide(s).action != poll {
		return nil, kube.Conflict("content %s is being deleted", name)
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
		return nil, snapshot.Problemf(r.kind.Reasons().Check, "the driver has lost snapshot %s: a repeated call with name %s created %s; delete one of them at the driver",
			s.Handle, record.Name, made.Handle)
	}
	return made, err
}

// secrets reads the secret for creating and deleting. snapshot-controller resolved its name
// when it created the content.
func (r *Reconciler) secrets(ctx context.Context, s *state) (map[string]string, error) {
	values, err := kube.SecretData(ctx, r.apiReader, r.keys.SecretOf(s.Object.GetAnnotations()))
	return values, secretError(err, r.kind.Reasons().Create)
}

// readSecrets reads the secret for reading snapshots: that of the class or, for a group
// member, that of the group.
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

// Bounds of the interval in which the driver is polled.
const (
	minPollInterval = 200 * time.Millisecond
	maxPollInterval = 10 * time.Second
)

// pollInterval returns how long to wait before the next poll: a tenth of the content's age,
// within bounds. Snapshots of fast drivers become ready quickly, slow drivers are not polled
// too often, and no state has to be kept.
func (r *Reconciler) pollInterval(s *state) time.Duration {
	return min(maxPollInterval, max(minPollInterval, r.now().Sub(s.Object.GetCreationTimestamp().Time)/10))
}

// secretError turns a secret that is missing or invalid into a Problem for the user.
func secretError(err error, reason string) error {
	if kube.IsSecretProblem(err) {
		return snapshot.Problemf(reason, "%v: the driver cannot be called without it", err)
	}
	if err != nil {
		return fmt.Errorf("reading the secret: %w", err)
	}
	return nil
}
