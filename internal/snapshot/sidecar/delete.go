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

// learn drives a request whose answer nobody knows to an answer, because what it
// may have made must be deleted, or at least named. Asking again either finds
// the snapshot or, the driver being idempotent, makes it now.
func (r *Reconciler) learn(ctx context.Context, s *seen) error {
	a, err := r.ask(s)
	if err != nil {
		return err
	}
	secrets, err := r.partingSecrets(ctx, s)
	if err != nil {
		return err
	}
	asked := &Request{Name: a.Name, Volumes: s.Volumes, Parameters: a.Parameters, Secrets: secrets}
	made, err := r.kind.Create(ctx, r.driver, *asked)
	if err != nil {
		made, err = r.found(ctx, s, asked, answer{err: err})
	}
	if err != nil {
		return fmt.Errorf("the content is to go, and it is not known whether there is a snapshot: %w", err)
	}
	if made == nil {
		return r.letGo(ctx, s)
	}
	if err := r.report(ctx, s, made); err != nil {
		return err
	}
	s.Content = r.kind.Read(s.Object)
	return r.end(ctx, s, r.decideEnd(s))
}

// found finds out by other means whether there is a snapshot that the driver does not
// answer about; nil if there surely is none.
func (r *Reconciler) found(ctx context.Context, s *seen, asked *Request, a answer) (*Snapshot, error) {
	if csi.Answered(a.err) {
		there, err := r.lookFor(ctx, s, asked)
		if err != nil {
			return nil, errors.Join(a.err, err)
		}
		if there.handle != "" {
			return &Snapshot{Handle: there.handle}, nil
		}
	}
	known, err := r.nothing(ctx, s, asked, a)
	switch {
	case err != nil:
		return nil, errors.Join(a.err, err)
	case known:
		return nil, nil
	default:
		return nil, errors.Join(r.open(s, asked, a), r.remark(ctx, s, r.refusing(s, a)))
	}
}

// remove deletes the snapshot at the driver. The finalizer says that this is
// still to be done, so a repetition after a death deletes again, which is fine. The
// call may wait for long before it is sent: the decision is made once more then, from
// the API server itself, for somebody may have set policy Retain to save the data.
func (r *Reconciler) remove(ctx context.Context, s *seen) error {
	secrets, err := r.partingSecrets(ctx, s)
	if err != nil {
		return err
	}
	err = r.kind.Delete(ctx, r.driver.WithPrecondition(func(ctx context.Context) error { return r.stillToRemove(ctx, s) }), &s.Content, secrets)
	if errors.Is(err, csi.ErrPreconditionFailed) {
		return kube.Conflict("content %s is not to be deleted with its snapshot any more", s.Object.GetName())
	}
	if err != nil && !r.goesWithGroup(ctx, s, err) {
		return err
	}
	return r.letGo(ctx, s)
}

// stillToRemove is nil if the API server says of a content what was seen of it: that
// its snapshot is to be deleted. What else it says is taken over.
func (r *Reconciler) stillToRemove(ctx context.Context, s *seen) error {
	now, err := r.observe(ctx, r.live, s.Object.GetName())
	if err != nil {
		return err
	}
	if now == nil || now.Object.GetUID() != s.Object.GetUID() || now.handle() != s.handle() || r.decide(now).action != remove {
		return csi.ErrPreconditionFailed
	}
	s.Content = now.Content
	return nil
}

// goesWithGroup tells whether a snapshot cannot be deleted because it is part of a
// group at the driver: then its deletion is to be asked for no more, only that of the
// group (CSI specification, errors of DeleteSnapshot). Of one that was there before
// that is not known until the driver was asked about it, and it may go before.
func (r *Reconciler) goesWithGroup(ctx context.Context, s *seen, refusal error) bool {
	var answer *csi.Error
	if !errors.As(refusal, &answer) || answer.Code != codes.InvalidArgument || s.PreProvisioned == "" {
		return false
	}
	now, err := r.read(ctx, s)
	if err != nil || now.Group == "" {
		return false // The refusal says more.
	}
	r.events.Warning(s.Object, r.kind.Reasons().Delete,
		fmt.Sprintf("The snapshot %s is part of the group snapshot %s at the driver and is deleted with that, not with this content.", s.handle(), now.Group))
	return true
}

// partingSecrets are those for deleting. One that is gone does not hold that up:
// the driver decides whether it can do without.
func (r *Reconciler) partingSecrets(ctx context.Context, s *seen) (map[string]string, error) {
	values, err := kube.SecretData(ctx, r.live, r.marks.SecretOf(s.Object.GetAnnotations()))
	if client.IgnoreNotFound(err) != nil {
		return nil, fmt.Errorf("preparing the deletion: %w", err)
	}
	return values, nil
}

// letGo takes away what keeps the content, and with it the mark.
func (r *Reconciler) letGo(ctx context.Context, s *seen) error {
	left := slices.DeleteFunc(slices.Clone(s.Object.GetFinalizers()), func(f string) bool { return f == r.marks.Finalizer })
	err := r.patch(ctx, s, map[string]any{
		"resourceVersion": s.Object.GetResourceVersion(), // Only if it is still the one that was seen.
		"finalizers":      left,
		"annotations":     map[string]any{r.marks.BeingCreated: nil},
	})
	if isNotFound(err) {
		return nil
	}
	return kube.WrapWriteError(err, "letting the content go")
}

func isNotFound(err error) bool { return apierrors.IsNotFound(err) }
