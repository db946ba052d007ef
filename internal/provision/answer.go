package provision

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/provision/pending"
)

// This file is about answers other than a volume that could be published. An
// intent ends in one of these ways: the volume is published; nothing was made,
// which only a refusal of the very first request proves; or what was made has been
// deleted at the driver. Anything else leaves the intent on record.

// createFailed acts on a CreateVolume that failed, by what that means for the next.
func (r *Reconciler) createFailed(ctx context.Context, s state, op *pending.Operation, failure error) (time.Duration, error) {
	failure = fmt.Errorf("creating volume %s: %w", op.Request.GetName(), failure)
	var bad *csi.InvalidResponse
	if errors.As(failure, &bad) && bad.ID != "" {
		return r.deleteUnusable(ctx, s, op, bad.ID, failure)
	}
	outcome := csi.OutcomeOf(failure)
	switch {
	case outcome.Final() && op.FirstAttempt:
		return r.endWithoutVolume(ctx, s, op, outcome, failure)
	case csi.Responded(failure):
		return r.createFailedInDoubt(ctx, s, op, outcome, failure)
	}
	r.reportPending(s, op, failure)
	if err := r.pending.SetFailingSince(ctx, op, time.Time{}); err != nil {
		return 0, errors.Join(failure, err)
	}
	return r.retryAfter(failure, op.Since) // The same request again.
}

// endWithoutVolume ends an intent of which the driver has made nothing.
func (r *Reconciler) endWithoutVolume(ctx context.Context, s state, op *pending.Operation, outcome csi.Outcome, failure error) (time.Duration, error) {
	canMove := outcome == csi.OutOfCapacity && s.canReschedule(op)
	if canMove {
		failure = fmt.Errorf("%w: no room near node %s, waiting for another", failure, kube.SelectedNode(s.claim))
	}
	r.reportFailure(s, failure)
	if err := r.finish(ctx, op); err != nil {
		return 0, err
	}
	switch {
	case s.claim == nil:
		return 0, nil // Nobody wants it any more.
	case canMove:
		return 0, r.unselectNode(ctx, s.claim)
	case outcome == csi.Infeasible:
		return r.options.RetryMax, nil
	default:
		return 0, failure
	}
}

// createFailedInDoubt is about a request that the driver refuses when it may have made the
// volume: an earlier call was not answered, or this one failed inside the driver. The
// refusal says nothing about that: many drivers check quotas and credentials before
// they look for the volume. So the intent stays, and with it the place that was asked
// for, unless the driver's own list shows that there is no such volume, or which one
// it is.
func (r *Reconciler) createFailedInDoubt(ctx context.Context, s state, op *pending.Operation, outcome csi.Outcome, failure error) (time.Duration, error) {
	if op.FailingSince.IsZero() {
		if err := r.pending.SetFailingSince(ctx, op, time.Now()); err != nil {
			return 0, errors.Join(failure, err)
		}
	}
	found, err := r.findInList(ctx, s, op)
	if err != nil {
		failure = errors.Join(failure, err)
	}
	switch {
	case found.absent:
		return r.endWithoutVolume(ctx, s, op, outcome, failure)
	case found.handle != "" && !s.isWanted(op):
		op.Handle = found.handle
		return r.deleteUnwanted(ctx, s, op)
	}
	r.reportPending(s, op, fmt.Errorf("%w; the driver may have made volume %s all the same: it is asked for again, and nowhere else; to begin anew make sure that there is no such volume and delete Lease %s",
		failure, op.Request.GetName(), op.Record))
	if outcome == csi.Infeasible {
		return r.options.RetryMax, nil
	}
	return 0, failure
}

// deleteUnusable gives back a volume that nobody can use, and ends the intent with that:
// what was made and deleted is not there. While the claim waits it is tried again,
// slowly, because each try makes a volume.
func (r *Reconciler) deleteUnusable(ctx context.Context, s state, op *pending.Operation, handle string, reason error) (time.Duration, error) {
	r.reportPending(s, op, reason)
	handles := []string{handle}
	if op.Handle != "" && op.Handle != handle {
		handles = append(handles, op.Handle)
	}
	for _, one := range handles {
		err := r.deleteVolume(ctx, op, one)
		if err != nil && !errors.Is(err, csi.ErrPreconditionFailed) {
			return 0, errors.Join(reason, err, r.pending.SetHandle(ctx, op, handle))
		}
	}
	if err := r.finish(ctx, op); err != nil || !s.isWanted(op) {
		return 0, err
	}
	return r.options.RetryMax, nil
}

// persistentVolumeFailed acts on a volume whose PersistentVolume could not be created. If the
// API server will not have it as it is the volume is given back; for anything else
// it is kept, and on record.
func (r *Reconciler) persistentVolumeFailed(ctx context.Context, s state, op *pending.Operation, handle string, failure error) (time.Duration, error) {
	if isPermanentRejection(failure) {
		return r.deleteUnusable(ctx, s, op, handle, fmt.Errorf("%w; volume %s, which the driver has made for it, is deleted", failure, handle))
	}
	r.reportPending(s, op, failure)
	return 0, errors.Join(failure, r.pending.SetHandle(ctx, op, handle))
}

// deleteUnwanted deletes a volume that the driver has made and nobody wants, and ends its
// intent.
func (r *Reconciler) deleteUnwanted(ctx context.Context, s state, op *pending.Operation) (time.Duration, error) {
	if err := r.readSecret(ctx, op); err != nil {
		var missing *secretMissingError
		if !errors.As(err, &missing) { // Without it the driver may be able to delete all the same.
			return 0, err
		}
	}
	err := r.deleteVolume(ctx, op, op.Handle)
	if err != nil && !errors.Is(err, csi.ErrPreconditionFailed) {
		r.reportPending(s, op, err)
		return 0, errors.Join(err, r.pending.Update(ctx, op))
	}
	return 0, r.finish(ctx, op)
}

// deleteVolume deletes a volume that was made for an intent. If a PersistentVolume turns
// out to have it nothing is deleted, and the error is [csi.ErrPreconditionFailed].
func (r *Reconciler) deleteVolume(ctx context.Context, op *pending.Operation, handle string) error {
	if handle == "" {
		return nil
	}
	unused := func(ctx context.Context) error { return r.checkUnused(ctx, op, handle) }
	err := r.driver.WithPrecondition(unused).DeleteVolume(ctx, &csipb.DeleteVolumeRequest{VolumeId: handle, Secrets: op.SecretValues})
	if err != nil {
		return fmt.Errorf("deleting volume %s, which cannot be used: %w", handle, err)
	}
	return nil
}

// checkUnused is nil if no PersistentVolume has a volume of the driver's. The one of the
// intent's claim is read from the API server: it may have been published a moment
// ago, and be in use.
func (r *Reconciler) checkUnused(ctx context.Context, op *pending.Operation, handle string) error {
	own := &corev1.PersistentVolume{}
	there, err := r.getUncached(ctx, types.NamespacedName{Name: op.Volume.Name}, own)
	if err != nil {
		return err
	}
	all := &corev1.PersistentVolumeList{}
	if err := r.client.List(ctx, all, client.UnsafeDisableDeepCopy); err != nil {
		return fmt.Errorf("listing PersistentVolumes: %w", err)
	}
	if there {
		all.Items = append(all.Items, *own)
	}
	for n := range all.Items {
		if !r.options.isOurVolume(&all.Items[n]) {
			continue
		}
		// One that cannot be translated is not known to be another volume's.
		if v, err := r.options.Plugin.ToCSI(ctx, &all.Items[n]); err != nil || v.Spec.CSI.VolumeHandle == handle {
			return fmt.Errorf("PersistentVolume %s has it: %w", all.Items[n].Name, csi.ErrPreconditionFailed)
		}
	}
	return nil
}

// nameTakenError says that another PersistentVolume has the name of ours.
type nameTakenError struct{ name string }

func (n *nameTakenError) Error() string {
	return fmt.Sprintf("creating PersistentVolume %s: another one of that name is there, which is not this claim's; rename or delete it", n.name)
}

// isPermanentRejection tells whether the API server has refused a PersistentVolume in a
// way that asking again does not change: it is invalid, too large, its name is
// taken, or a policy or a missing right forbids it.
func isPermanentRejection(err error) bool {
	var taken *nameTakenError
	if errors.As(err, &taken) {
		return true
	}
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return false
	}
	switch status.Status().Code {
	case http.StatusBadRequest, http.StatusForbidden, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
		return true
	default:
		return false
	}
}
