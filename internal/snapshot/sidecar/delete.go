package sidecar

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/grpc/codes"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/kube"
)

// resolveOutcome drives a request whose answer nobody knows to an answer, because what it
// may have made must be deleted, or at least named. Asking again either finds
// the snapshot or, the driver being idempotent, makes it now.
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
		return fmt.Errorf("the content is to go, and it is not known whether there is a snapshot: %w", err)
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

// resolveByListing finds out by other means whether there is a snapshot that the driver does not
// answer about; nil if there surely is none.
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

// deleteSnapshot deletes the snapshot at the driver. The finalizer says that this is
// still to be done, so a repetition after a death deletes again, which is fine. The
// call may wait for long before it is sent: the decision is made once more then, from
// the API server itself, for somebody may have set policy Retain to save the data.
func (r *Reconciler) deleteSnapshot(ctx context.Context, s *state) error {
	secrets, err := r.deletionSecrets(ctx, s)
	if err != nil {
		return err
	}
	err = r.kind.Delete(ctx, r.driver.WithPrecondition(func(ctx context.Context) error { return r.confirmDelete(ctx, s) }), &s.Content, secrets)
	if errors.Is(err, csi.ErrPreconditionFailed) {
		return kube.Conflict("content %s is not to be deleted with its snapshot any more", s.Object.GetName())
	}
	if err != nil && !r.isDeletedWithGroup(ctx, s, err) {
		return err
	}
	return r.removeFinalizer(ctx, s)
}

// confirmDelete is nil if the API server says of a content what was seen of it: that
// its snapshot is to be deleted. What else it says is taken over.
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

// isDeletedWithGroup tells whether a snapshot cannot be deleted because it is part of a
// group at the driver: then its deletion is to be asked for no more, only that of the
// group (CSI specification, errors of DeleteSnapshot). Of one that was there before
// that is not known until the driver was asked about it, and it may go before.
func (r *Reconciler) isDeletedWithGroup(ctx context.Context, s *state, err error) bool {
	var driverErr *csi.Error
	if !errors.As(err, &driverErr) || driverErr.Code != codes.InvalidArgument || s.PreProvisioned == "" {
		return false
	}
	made, err := r.readSnapshot(ctx, s)
	if err != nil || made.GroupHandle == "" {
		return false // The refusal says more.
	}
	r.events.Warning(s.Object, r.kind.Reasons().Delete,
		fmt.Sprintf("The snapshot %s is part of the group snapshot %s at the driver and is deleted with that, not with this content.", s.handle(), made.GroupHandle))
	return true
}

// deletionSecrets are those for deleting. One that is gone does not hold that up:
// the driver decides whether it can do without.
func (r *Reconciler) deletionSecrets(ctx context.Context, s *state) (map[string]string, error) {
	values, err := kube.SecretData(ctx, r.apiReader, r.keys.SecretOf(s.Object.GetAnnotations()))
	if client.IgnoreNotFound(err) != nil {
		return nil, fmt.Errorf("preparing the deletion: %w", err)
	}
	return values, nil
}

// removeFinalizer takes away what keeps the content, and with it the mark.
func (r *Reconciler) removeFinalizer(ctx context.Context, s *state) error {
	left := slices.DeleteFunc(slices.Clone(s.Object.GetFinalizers()), func(f string) bool { return f == r.keys.Finalizer })
	err := r.patchMetadata(ctx, s, map[string]any{
		"resourceVersion": s.Object.GetResourceVersion(), // Only if it is still the one that was seen.
		"finalizers":      left,
		"annotations":     map[string]any{r.keys.BeingCreated: nil},
	})
	if isNotFound(err) {
		return nil
	}
	return kube.WrapWriteError(err, "letting the content go")
}

func isNotFound(err error) bool { return apierrors.IsNotFound(err) }
