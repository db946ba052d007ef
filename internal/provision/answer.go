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
)

// This file is about answers other than a volume that could be published. An
// intent ends in one of these ways: the volume is published; nothing was made,
// which only a refusal of the very first request proves; or what was made has been
// deleted at the driver. Anything else leaves the intent on record.

// failed acts on a CreateVolume that failed, by what that means for the next.
func (r *Reconciler) failed(ctx context.Context, s seen, i *intent, failure error) (time.Duration, error) {
	failure = fmt.Errorf("creating volume %s: %w", i.request.GetName(), failure)
	var bad *csi.InvalidResponse
	if errors.As(failure, &bad) && bad.ID != "" {
		return r.unusable(ctx, s, i, bad.ID, failure)
	}
	verdict := csi.OutcomeOf(failure)
	switch {
	case verdict.Final() && i.first:
		return r.refused(ctx, s, i, verdict, failure)
	case csi.Answered(failure):
		return r.refusedLater(ctx, s, i, verdict, failure)
	}
	r.stuck(s, i, failure)
	if err := r.journal.setRefused(ctx, i, time.Time{}); err != nil {
		return 0, errors.Join(failure, err)
	}
	return r.retry(failure, i.since) // The same request again.
}

// refused ends an intent of which the driver has made nothing.
func (r *Reconciler) refused(ctx context.Context, s seen, i *intent, verdict csi.Outcome, failure error) (time.Duration, error) {
	full := verdict == csi.OutOfCapacity && s.waitsFor(i)
	if full {
		failure = fmt.Errorf("%w: no room near node %s, waiting for another", failure, selectedNode(s.claim))
	}
	r.fails(s, failure)
	if err := r.forget(ctx, i); err != nil {
		return 0, err
	}
	switch {
	case s.claim == nil:
		return 0, nil // Nobody wants it any more.
	case full:
		return 0, r.unselectNode(ctx, s.claim)
	case verdict == csi.Infeasible:
		return r.options.RetryMax, nil
	default:
		return 0, failure
	}
}

// refusedLater is about a request that the driver refuses when it may have made the
// volume: an earlier call was not answered, or this one failed inside the driver. The
// refusal says nothing about that: many drivers check quotas and credentials before
// they look for the volume. So the intent stays, and with it the place that was asked
// for, unless the driver's own list shows that there is no such volume, or which one
// it is.
func (r *Reconciler) refusedLater(ctx context.Context, s seen, i *intent, verdict csi.Outcome, failure error) (time.Duration, error) {
	if i.refused.IsZero() {
		if err := r.journal.setRefused(ctx, i, time.Now()); err != nil {
			return 0, errors.Join(failure, err)
		}
	}
	there, err := r.lookFor(ctx, s, i)
	if err != nil {
		failure = errors.Join(failure, err)
	}
	switch {
	case there.absent:
		return r.refused(ctx, s, i, verdict, failure)
	case there.handle != "" && !s.wants(i):
		i.handle = there.handle
		return r.giveBack(ctx, s, i)
	}
	r.stuck(s, i, fmt.Errorf("%w; the driver may have made volume %s all the same: it is asked for again, and nowhere else; to begin anew make sure that there is no such volume and delete Lease %s",
		failure, i.request.GetName(), i.record))
	if verdict == csi.Infeasible {
		return r.options.RetryMax, nil
	}
	return 0, failure
}

// unusable gives back a volume that nobody can use, and ends the intent with that:
// what was made and deleted is not there. While the claim waits it is tried again,
// slowly, because each try makes a volume.
func (r *Reconciler) unusable(ctx context.Context, s seen, i *intent, handle string, reason error) (time.Duration, error) {
	r.stuck(s, i, reason)
	handles := []string{handle}
	if i.handle != "" && i.handle != handle {
		handles = append(handles, i.handle)
	}
	for _, one := range handles {
		err := r.discard(ctx, i, one)
		if err != nil && !errors.Is(err, csi.ErrPreconditionFailed) {
			return 0, errors.Join(reason, err, r.journal.setHandle(ctx, i, handle))
		}
	}
	if err := r.forget(ctx, i); err != nil || !s.wants(i) {
		return 0, err
	}
	return r.options.RetryMax, nil
}

// unpublished acts on a volume whose PersistentVolume could not be created. If the
// API server will not have it as it is the volume is given back; for anything else
// it is kept, and on record.
func (r *Reconciler) unpublished(ctx context.Context, s seen, i *intent, handle string, failure error) (time.Duration, error) {
	if refusedForGood(failure) {
		return r.unusable(ctx, s, i, handle, fmt.Errorf("%w; volume %s, which the driver has made for it, is deleted", failure, handle))
	}
	r.stuck(s, i, failure)
	return 0, errors.Join(failure, r.journal.setHandle(ctx, i, handle))
}

// giveBack deletes a volume that the driver has made and nobody wants, and ends its
// intent.
func (r *Reconciler) giveBack(ctx context.Context, s seen, i *intent) (time.Duration, error) {
	if err := r.readSecret(ctx, i); err != nil {
		var missing *noSecret
		if !errors.As(err, &missing) { // Without it the driver may be able to delete all the same.
			return 0, err
		}
	}
	err := r.discard(ctx, i, i.handle)
	if err != nil && !errors.Is(err, csi.ErrPreconditionFailed) {
		r.stuck(s, i, err)
		return 0, errors.Join(err, r.journal.note(ctx, i))
	}
	return 0, r.forget(ctx, i)
}

// discard deletes a volume that was made for an intent. If a PersistentVolume turns
// out to have it nothing is deleted, and the error is [csi.ErrPreconditionFailed].
func (r *Reconciler) discard(ctx context.Context, i *intent, handle string) error {
	if handle == "" {
		return nil
	}
	unused := func(ctx context.Context) error { return r.unused(ctx, i, handle) }
	err := r.driver.WithPrecondition(unused).DeleteVolume(ctx, &csipb.DeleteVolumeRequest{VolumeId: handle, Secrets: i.values})
	if err != nil {
		return fmt.Errorf("deleting volume %s, which cannot be used: %w", handle, err)
	}
	return nil
}

// unused is nil if no PersistentVolume has a volume of the driver's. The one of the
// intent's claim is read from the API server: it may have been published a moment
// ago, and be in use.
func (r *Reconciler) unused(ctx context.Context, i *intent, handle string) error {
	own := &corev1.PersistentVolume{}
	there, err := r.getLive(ctx, types.NamespacedName{Name: i.volume.Name}, own)
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
		if !r.options.has(&all.Items[n]) {
			continue
		}
		// One that cannot be translated is not known to be another volume's.
		if v, err := r.options.Plugin.ToCSI(ctx, &all.Items[n]); err != nil || v.Spec.CSI.VolumeHandle == handle {
			return fmt.Errorf("PersistentVolume %s has it: %w", all.Items[n].Name, csi.ErrPreconditionFailed)
		}
	}
	return nil
}

// nameTaken says that another PersistentVolume has the name of ours.
type nameTaken struct{ name string }

func (n *nameTaken) Error() string {
	return fmt.Sprintf("creating PersistentVolume %s: another one of that name is there, which is not this claim's; rename or delete it", n.name)
}

// refusedForGood tells whether the API server has refused a PersistentVolume in a
// way that asking again does not change: it is invalid, too large, its name is
// taken, or a policy or a missing right forbids it.
func refusedForGood(err error) bool {
	var taken *nameTaken
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
