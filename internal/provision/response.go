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

// This file has the rules about responses other than a usable volume. An operation ends
// in one of three ways:
//
//   - the PersistentVolume is created;
//   - the driver has created nothing, which only the failure of the very first call
//     proves, or the driver's list of volumes;
//   - the driver has deleted what it has created.
//
// In all other cases the record stays and the call is repeated.

// createFailed acts on a CreateVolume that failed, by what its code says about the
// outcome (CSI spec, error scheme).
func (r *Reconciler) createFailed(ctx context.Context, s state, op *pending.Operation, failure error) (time.Duration, error) {
	failure = fmt.Errorf("creating volume %s: %w", op.Request.GetName(), failure)
	var invalid *csi.InvalidResponse
	if errors.As(failure, &invalid) && invalid.ID != "" {
		return r.deleteUnusable(ctx, s, op, invalid.ID, failure)
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

// endWithoutVolume ends an operation for which the driver has created nothing.
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
		return 0, nil
	case canMove:
		return 0, r.unselectNode(ctx, s.claim)
	case outcome == csi.Infeasible:
		return r.options.RetryMax, nil
	default:
		return 0, failure
	}
}

// createFailedInDoubt acts on a failed call when the driver may have created the volume
// all the same: an earlier call had no response, or this one failed inside the driver.
// The error says nothing about that, because many drivers check quotas and credentials
// before they look for the volume. So the record stays, and with it the topology that was
// requested, unless the driver's list shows that the volume does not exist, or which one
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
	r.reportPending(s, op, fmt.Errorf("%w; the driver may have created volume %s all the same, so the same request is repeated; to start again, make sure that no such volume exists and delete Lease %s",
		failure, op.Request.GetName(), op.Record))
	if outcome == csi.Infeasible {
		return r.options.RetryMax, nil
	}
	return 0, failure
}

// persistentVolumeFailed acts on a volume whose PersistentVolume could not be created. If
// the API server rejects it for good the volume is deleted. After any other error the
// volume stays, and its handle is recorded.
func (r *Reconciler) persistentVolumeFailed(ctx context.Context, s state, op *pending.Operation, handle string, failure error) (time.Duration, error) {
	if isPermanentRejection(failure) {
		return r.deleteUnusable(ctx, s, op, handle, fmt.Errorf("%w; volume %s, which the driver has created for it, is deleted", failure, handle))
	}
	r.reportPending(s, op, failure)
	return 0, errors.Join(failure, r.pending.SetHandle(ctx, op, handle))
}

// isPermanentRejection reports whether the API server has rejected a PersistentVolume in a
// way that a retry does not change: it is invalid, too large, its name is taken, or a
// policy or a missing permission forbids it.
func isPermanentRejection(err error) bool {
	var taken *nameTakenError
	if errors.As(err, &taken) {
		return true
	}
	var status apierrors.APIStatus
	if !kube.IsDenied(err) || !errors.As(err, &status) {
		return false
	}
	switch status.Status().Code {
	case http.StatusBadRequest, http.StatusForbidden, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
		return true
	default:
		return false
	}
}

// deleteUnusable deletes a volume that cannot be used and ends the operation with that.
// While the claim waits the next attempt is made slowly, because each one creates a
// volume.
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

// deleteUnwanted deletes a volume whose claim is gone and ends its operation.
func (r *Reconciler) deleteUnwanted(ctx context.Context, s state, op *pending.Operation) (time.Duration, error) {
	if err := r.readSecret(ctx, op); client.IgnoreNotFound(err) != nil { // The driver may not need a missing secret to delete.
		if kube.IsSecretProblem(err) {
			r.reportPending(s, op, err)
		}
		return r.retryAfter(err, op.Since)
	}
	err := r.deleteVolume(ctx, op, op.Handle)
	if err != nil && !errors.Is(err, csi.ErrPreconditionFailed) {
		r.reportPending(s, op, err)
		return 0, errors.Join(err, r.pending.Update(ctx, op))
	}
	return 0, r.finish(ctx, op)
}

// deleteVolume deletes a volume that was created for an operation. If a PersistentVolume
// has the volume, nothing is deleted and the error is [csi.ErrPreconditionFailed].
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

// checkUnused returns nil if no PersistentVolume has a volume of the driver. It reads the
// PersistentVolume of the operation's claim from the API server, because that one may
// have been created a moment ago.
func (r *Reconciler) checkUnused(ctx context.Context, op *pending.Operation, handle string) error {
	own := &corev1.PersistentVolume{}
	found, err := r.getUncached(ctx, types.NamespacedName{Name: op.Volume.Name}, own)
	if err != nil {
		return err
	}
	all := &corev1.PersistentVolumeList{}
	if err := r.client.List(ctx, all, client.UnsafeDisableDeepCopy); err != nil {
		return fmt.Errorf("listing PersistentVolumes: %w", err)
	}
	if found {
		all.Items = append(all.Items, *own)
	}
	for n := range all.Items {
		if !r.options.isOurVolume(&all.Items[n]) {
			continue
		}
		// A PersistentVolume that cannot be translated may have the volume.
		if v, err := r.options.Plugin.ToCSI(ctx, &all.Items[n]); err != nil || v.Spec.CSI.VolumeHandle == handle {
			return fmt.Errorf("PersistentVolume %s has it: %w", all.Items[n].Name, csi.ErrPreconditionFailed)
		}
	}
	return nil
}
