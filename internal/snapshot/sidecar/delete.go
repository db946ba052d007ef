package sidecar

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/grpc/codes"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/kube"
)

// resolveOutcome repeats a request whose outcome is unknown: a snapshot that it created must
// be deleted, or its handle recorded. CreateSnapshot is idempotent, so the repeated call
// returns that snapshot or creates it now.
func (r *Reconciler) resolveOutcome(ctx context.Context, s *state) error {
	record, err := r.chooseRequest(s)
	if err != nil {
		return err
	}
	secrets, err := r.deletionSecrets(ctx, s)
	if err != nil {
		return err
	}
	request := &Request{Name: record.Name, Volumes: s.Volumes, Parameters: record.Parameters, Secrets: secrets}
	made, err := r.kind.Create(ctx, r.driver, *request)
	if err != nil {
		made, err = r.resolveByListing(ctx, s, request, createFailure{err: err})
	}
	if err != nil {
		return fmt.Errorf("the content is being deleted, and it is unknown whether the driver created a snapshot: %w", err)
	}
	if made == nil {
		return r.removeFinalizer(ctx, s)
	}
	if err := r.writeStatus(ctx, s, made); err != nil {
		return err
	}
	s.Content = r.kind.Read(s.Object)
	return r.doDeletion(ctx, s, r.decideDeletion(s))
}

// resolveByListing finds out without CreateSnapshot whether the driver has the snapshot. It
// returns nil if the driver certainly has none.
func (r *Reconciler) resolveByListing(ctx context.Context, s *state, request *Request, e createFailure) (*Snapshot, error) {
	if csi.Responded(e.err) {
		listed, err := r.findInList(ctx, s, request)
		if err != nil {
			return nil, errors.Join(e.err, err)
		}
		if listed.handle != "" {
			return &Snapshot{Handle: listed.handle}, nil
		}
	}
	nothing, err := r.nothingCreated(ctx, s, request, e)
	switch {
	case err != nil:
		return nil, errors.Join(e.err, err)
	case nothing:
		return nil, nil
	default:
		return nil, errors.Join(r.unresolvedError(s, request, e), r.renewRecord(ctx, s, r.nextRejectedSince(s, e)))
	}
}

// deleteSnapshot deletes the snapshot at the driver. The finalizer shows that this is still
// to do. After a crash the call is repeated, which is harmless. The call may wait long before
// it is sent. The decision is checked right before, against the API server: a user may have
// set policy Retain to save the data.
func (r *Reconciler) deleteSnapshot(ctx context.Context, s *state) error {
	secrets, err := r.deletionSecrets(ctx, s)
	if err != nil {
		return err
	}
	err = r.kind.Delete(ctx, r.driver.WithPrecondition(func(ctx context.Context) error { return r.confirmDelete(ctx, s) }), &s.Content, secrets)
	if errors.Is(err, csi.ErrPreconditionFailed) {
		return kube.Conflict("the snapshot of content %s must not be deleted any more", s.Object.GetName())
	}
	if err != nil && !r.isDeletedWithGroup(ctx, s, err) {
		return err
	}
	return r.removeFinalizer(ctx, s)
}

// confirmDelete returns nil if the content in the API server still requires to delete the
// snapshot. It updates s from there.
func (r *Reconciler) confirmDelete(ctx context.Context, s *state) error {
	now, err := r.observe(ctx, r.apiReader, s.Object.GetName())
	if err != nil {
		return err
	}
	if now == nil || now.Object.GetUID() != s.Object.GetUID() || now.handle() != s.handle() || r.decide(now).action != deleteSnapshot {
		return csi.ErrPreconditionFailed
	}
	s.Content = now.Content
	return nil
}

// isDeletedWithGroup reports whether a snapshot cannot be deleted because it is a member of a
// group at the driver. Only the group can be deleted then (CSI specification, errors of
// DeleteSnapshot). Whether a pre-provisioned snapshot is a member is unknown before the
// driver was asked, and its content may be deleted before.
func (r *Reconciler) isDeletedWithGroup(ctx context.Context, s *state, err error) bool {
	var driverErr *csi.Error
	if !errors.As(err, &driverErr) || driverErr.Code != codes.InvalidArgument || s.PreProvisioned == "" {
		return false
	}
	made, err := r.readSnapshot(ctx, s)
	if err != nil || made.GroupHandle == "" {
		return false // The first error says more.
	}
	r.events.Warning(s.Object, r.kind.Reasons().Delete,
		fmt.Sprintf("Snapshot %s is a member of group snapshot %s at the driver: it is deleted with the group, not with this content.", s.handle(), made.GroupHandle))
	return true
}

// deletionSecrets reads the secret for deleting. If it does not exist, the driver is called
// without it and may still succeed.
func (r *Reconciler) deletionSecrets(ctx context.Context, s *state) (map[string]string, error) {
	values, err := kube.SecretData(ctx, r.apiReader, r.keys.SecretOf(s.Object.GetAnnotations()))
	if isNotFound(err) {
		return nil, nil
	}
	return values, secretError(err, r.kind.Reasons().Delete)
}

// removeFinalizer removes our finalizer and the being-created annotation.
func (r *Reconciler) removeFinalizer(ctx context.Context, s *state) error {
	left := slices.DeleteFunc(slices.Clone(s.Object.GetFinalizers()), func(f string) bool { return f == r.keys.Finalizer })
	err := r.patchMetadata(ctx, s, map[string]any{
		"resourceVersion": s.Object.GetResourceVersion(), // Fails if the content has changed.
		"finalizers":      left,
		"annotations":     map[string]any{r.keys.BeingCreated: nil},
	})
	return kube.WrapWriteError(kube.IgnoreGone(err), "removing the finalizer of content "+s.Object.GetName())
}

func isNotFound(err error) bool { return apierrors.IsNotFound(err) }
